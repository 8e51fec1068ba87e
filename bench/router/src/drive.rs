//! Clients that offer at a steady rate, whether they are answered or not: a server that is slow gets no fewer offers, and
//! what it makes wait counts from when the offer should have been made.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Uri, header};
use serde_json::json;
use tokio::task::JoinSet;

use crate::http::{client, sdp};

/// As long as that of `streamfleet call`.
const SDP_BYTES: usize = 1_600;
/// An offer that has not been answered by then counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to offer.
    url: Uri,
    /// Offers a second.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = client::<Full<Bytes>>();
    let count = (args.rate * args.seconds) as u64;
    let run: u32 = rand::random();
    let (began, mut offers) = (Instant::now(), JoinSet::new());
    for n in 0..count {
        let due = began + Duration::from_secs_f64(n as f64 / args.rate);
        tokio::time::sleep_until(due.into()).await;
        let body = json!({
            "type": "offer", "sdp": sdp(SDP_BYTES), "webrtc_id": format!("{run:08x}-{n}"),
            "metadata": { "user_id": format!("user-{}", n % 1_000), "plan": "gold" },
        });
        let request = Request::builder().method(Method::POST).uri(args.url.clone());
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Full::from(body.to_string()))?;
        let client = client.clone();
        offers.spawn(async move {
            let answered = tokio::time::timeout(PATIENCE, async {
                let response = client.request(request).await.ok()?;
                let status = response.status();
                response.into_body().collect().await.ok()?;
                Some(status)
            });
            match answered.await {
                Ok(Some(status)) if status.is_success() => Ok(due.elapsed()),
                Ok(status) => Err(format!("{status:?}")),
                Err(_) => Err("no answer".to_owned()),
            }
        });
    }
    let (mut took, mut failed, mut first) = (Vec::new(), 0, None);
    while let Some(answered) = offers.join_next().await {
        match answered? {
            Ok(time) => took.push(time),
            Err(error) => {
                failed += 1;
                first.get_or_insert(error);
            }
        }
    }
    took.sort_unstable();
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).or(took.last()).map(Duration::as_secs_f64);
    let milliseconds = |share: f64| at(share).map(|seconds| seconds * 1e3);
    let found = json!({
        "offers": count, "failed": failed, "first_failure": first,
        "p50_ms": milliseconds(0.5), "p99_ms": milliseconds(0.99),
    });
    say(&found.to_string())
}

/// One line on standard output, for whoever started this.
pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}
