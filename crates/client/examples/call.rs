//! Calls a service, speaks a tone for three seconds, and says what came back:
//! `cargo run -p streamfleet-client --example call -- http://127.0.0.1:8080/echo`.

use std::io::Write as _;

use streamfleet_audio::analysis::level_dbfs;
use streamfleet_audio::tone::Tone;
use streamfleet_client::{Client, ClientOptions, Event, PcmFormat};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("give the URL of a service, such as http://127.0.0.1:8080/echo")?;
    let call = Client::connect(ClientOptions::new(url.parse()?)).await?;

    let format = PcmFormat { rate: 48_000, channels: 1 };
    let mut speech = vec![0; 3 * 48_000];
    Tone::new(format.rate, 440.0, -20.0).fill(&mut speech);

    let mut heard = Vec::new();
    let speak = async {
        call.send_audio(&speech, format).await?;
        call.flush_audio().await
    };
    let hear = async {
        while let Some(chunk) = call.next_audio().await {
            heard.extend(chunk.samples);
        }
    };
    let watch = async {
        while let Some(event) = call.next_event().await {
            if let Event::Message(message) = event {
                // Nothing can be done about a closed output.
                let _ = writeln!(std::io::stderr(), "the server says: {message:?}");
            }
        }
    };
    tokio::select! {
        sent = speak => sent?,
        ((), ()) = async { tokio::join!(hear, watch) } => {}
    }

    let summary = call.end().await;
    writeln!(
        std::io::stdout(),
        "{:?}: {} packets back, {:.1} % lost, {:.1} s of audio at {:.1} dBFS, connected after {:.0?}",
        summary.reason,
        summary.stats.audio.received,
        summary.stats.loss() * 100.0,
        heard.len() as f32 / 48_000.0,
        level_dbfs(&heard),
        summary.stats.setup.connected.unwrap_or_default(),
    )?;
    Ok(())
}
