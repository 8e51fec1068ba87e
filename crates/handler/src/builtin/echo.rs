//! `echo`: packets go back as they came.

use serde_json::Value;

use super::EchoFrames;
use crate::{ConfigError, Handler, Keys, Packet, PacketHandler, PacketSink, Registered};

/// Sends every packet back, sound and pictures, payload untouched. Takes no configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Echo {
    pub(super) fn configure(config: Value) -> Result<Registered, ConfigError> {
        Keys::new(config).finish()?;
        Ok(Registered::Packets(Box::new(Self)))
    }
}

impl PacketHandler for Echo {
    fn copy(&self) -> Box<dyn PacketHandler> {
        Box::new(*self)
    }

    fn frames(&self) -> Option<Box<dyn Handler>> {
        Some(Box::new(EchoFrames::default()))
    }

    fn packet(&mut self, packet: &Packet<'_>, out: &mut dyn PacketSink) {
        out.send(packet);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Sent;
    use crate::{CodecName, Registry, TrackKind};

    #[test]
    fn packets_of_both_kinds_go_back_untouched() {
        let Registered::Packets(prototype) = Registry::builtin().get("echo", Value::Null).unwrap() else {
            panic!("echo works on packets");
        };
        let mut echo = prototype.copy();
        let mut sent = Sent::default();
        let sound = Packet {
            kind: TrackKind::Audio,
            codec: CodecName::Opus,
            index: 65_536,
            timestamp: u32::MAX,
            marker: true,
            payload: &[0x78, 1, 2, 3],
        };
        let picture =
            Packet { kind: TrackKind::Video, codec: CodecName::Vp8, index: 7, marker: false, payload: &[], ..sound };
        echo.packet(&sound, &mut sent);
        echo.packet(&picture, &mut sent);
        echo.message("hello", &mut sent);
        assert_eq!(sent.packets, [sound.to_encoded(), picture.to_encoded()]);
        assert!(sent.messages.is_empty(), "the answer to a text is the session's business");
    }

    #[test]
    fn there_is_nothing_to_configure() {
        let error = Echo::configure(json!({ "rate": 8000 })).unwrap_err();
        assert_eq!(error.to_string(), "`rate` is not known here");
    }
}
