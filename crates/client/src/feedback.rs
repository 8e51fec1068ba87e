//! What the server says of the media that it gets: the reception reports in its RTCP (RFC 3550, 6.4.1).
//!
//! The WebRTC stack hands received RTCP to its interceptors alone and puts none of it into its statistics, so this is one of
//! them. A server that sends media itself has its reports within sender reports; both forms are read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rtc::interceptor::{Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::sansio::Protocol;
use rtc::shared::error::Error;

/// The loss that was reported last for our audio.
#[derive(Clone, Debug, Default)]
pub(crate) struct RemoteLoss(Arc<Mutex<Option<f32>>>);

impl RemoteLoss {
    /// The share that was lost between the server's last two reports, 0..1; `None` before the first.
    pub(crate) fn last(&self) -> Option<f32> {
        *self.0.lock()
    }
}

/// Reads reception reports and passes everything on. What waits here is taken out again before the next packet is put in.
#[derive(Default)]
pub(crate) struct Feedback {
    loss: RemoteLoss,
    audio: Option<u32>,
    received: VecDeque<TaggedPacket>,
    sent: VecDeque<TaggedPacket>,
}

impl Feedback {
    pub(crate) fn new(loss: RemoteLoss) -> Self {
        Self { loss, ..Self::default() }
    }

    fn read(&self, packets: &[Box<dyn rtc::rtcp::Packet>]) {
        for packet in packets {
            let packet = packet.as_any();
            let blocks: &[ReceptionReport] = match (packet.downcast_ref(), packet.downcast_ref()) {
                (Some(SenderReport { reports, .. }), _) | (_, Some(ReceiverReport { reports, .. })) => reports,
                _ => continue,
            };
            for block in blocks.iter().filter(|block| Some(block.ssrc) == self.audio) {
                *self.loss.0.lock() = Some(f32::from(block.fraction_lost) / 256.0);
            }
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Feedback {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(packets) = &message.message.packet {
            self.read(packets);
        }
        self.received.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.received.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.sent.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.sent.pop_front()
    }
}

impl Interceptor for Feedback {
    fn bind_local_stream(&mut self, stream: &StreamInfo) {
        if stream.mime_type.to_ascii_lowercase().starts_with("audio/") {
            self.audio = Some(stream.ssrc);
        }
    }

    fn unbind_local_stream(&mut self, stream: &StreamInfo) {
        self.audio.take_if(|ssrc| *ssrc == stream.ssrc);
    }

    fn bind_remote_stream(&mut self, _: &StreamInfo) {}

    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_our_audio_are_read_in_both_forms() {
        let block = |ssrc, fraction_lost| ReceptionReport { ssrc, fraction_lost, ..ReceptionReport::default() };
        let sender =
            |reports| Box::new(SenderReport { reports, ..SenderReport::default() }) as Box<dyn rtc::rtcp::Packet>;
        let receiver =
            |reports| Box::new(ReceiverReport { reports, ..ReceiverReport::default() }) as Box<dyn rtc::rtcp::Packet>;
        let loss = RemoteLoss::default();
        let mut feedback = Feedback::new(loss.clone());
        feedback.read(&[sender(vec![block(7, 64)])]);
        assert_eq!(loss.last(), None, "no stream of ours yet");
        feedback.audio = Some(7);
        feedback.read(&[sender(vec![block(8, 255), block(7, 64)])]);
        assert_eq!(loss.last(), Some(0.25));
        feedback.read(&[receiver(vec![block(7, 0)]), sender(Vec::new())]);
        assert_eq!(loss.last(), Some(0.0));
    }
}
