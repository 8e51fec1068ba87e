//! Which of an offer's m-lines are taken, and with which codec.

use streamfleet_handler::TrackKind;

use super::Wants;
use crate::media::sdp::{self, Description, Direction, InvalidOffer, OfferedCodec, Section, SectionKind};

/// What the session will have of an offer: all of it in one BUNDLE group.
pub(super) struct Choice<'s, 'a> {
    /// The offer's, in its order: what is not taken is refused m-line by m-line.
    sections: &'s [Section<'a>],
    taken: Vec<Taken<'s, 'a>>,
}

/// One m-line that is taken.
pub(super) struct Taken<'s, 'a> {
    index: usize,
    pub(super) section: &'s Section<'a>,
    pub(super) role: Role<'s, 'a>,
}

/// What an m-line is taken for.
pub(super) enum Role<'s, 'a> {
    Track(TrackKind, &'s OfferedCodec<'a>),
    DataChannel,
}

impl<'s, 'a> Choice<'s, 'a> {
    /// Takes at most one audio and one video m-line, the first that can be used (FastRTC's clients never offer more),
    /// and the first data channel beside them.
    ///
    /// # Errors
    /// No m-line can be used: what is wrong with the first that was meant to be.
    pub(super) fn of(offer: &'s Description<'a>, wants: Wants) -> Result<Self, InvalidOffer> {
        let sections = &offer.sections[..];
        for (i, section) in sections.iter().enumerate() {
            if !section.mid.is_empty() && sections[..i].iter().any(|s| s.mid == section.mid) {
                return Err(InvalidOffer::SameMid);
            }
        }
        let mut choice = Choice { sections, taken: Vec::with_capacity(3) };
        let mut group = None;
        let mut trouble = None;
        for (kind, wanted) in [(TrackKind::Audio, wants.audio), (TrackKind::Video, wants.video)] {
            if !wanted {
                continue;
            }
            for (index, section) in choice.live(SectionKind::Media(kind)) {
                if section.direction == Direction::Inactive {
                    continue;
                }
                match choice.track(section).and_then(|codec| Ok((codec, bundle(offer, section, group)?))) {
                    Ok((codec, of)) => {
                        group = Some(of);
                        choice.taken.push(Taken { index, section, role: Role::Track(kind, codec) });
                        break;
                    }
                    // Something that could be mended says more than that there is nothing.
                    Err(why) if trouble.is_none_or(|t| t == InvalidOffer::NoUsableMedia) => trouble = Some(why),
                    Err(_) => {}
                }
            }
        }
        if choice.taken.is_empty() {
            return Err(trouble.unwrap_or(InvalidOffer::NoUsableMedia));
        }
        let channel = choice
            .live(SectionKind::DataChannel)
            .find(|(_, section)| !section.mid.is_empty() && bundle(offer, section, group).is_ok());
        if let Some((index, section)) = channel {
            choice.taken.push(Taken { index, section, role: Role::DataChannel });
        }
        choice.taken.sort_by_key(|taken| taken.index);
        Ok(choice)
    }

    fn live(&self, kind: SectionKind) -> impl Iterator<Item = (usize, &'s Section<'a>)> + use<'s, 'a> {
        self.sections.iter().enumerate().filter(move |(_, s)| s.kind == kind && !s.rejected)
    }

    fn track(&self, section: &'s Section<'a>) -> Result<&'s OfferedCodec<'a>, InvalidOffer> {
        let used: Vec<u8> = self.tracks().map(|(_, _, codec)| codec.payload_type).collect();
        let codec = sdp::codec(section, &used)?;
        // RFC 8829 5.1.2 lets an offer with a fingerprint name any profile. One that names a profile without security
        // comes from a client that has none.
        if !section.line.protocol.rsplit('/').next().is_some_and(|profile| matches!(profile, "SAVP" | "SAVPF")) {
            return Err(InvalidOffer::PlainRtp);
        }
        if !section.rtcp_mux {
            return Err(InvalidOffer::NoRtcpMux);
        }
        if section.mid.is_empty() { Err(InvalidOffer::NoMid) } else { Ok(codec) }
    }

    /// The m-lines that are taken, in the offer's order.
    pub(super) fn taken(&self) -> &[Taken<'s, 'a>] {
        &self.taken
    }

    /// Those of them with media.
    pub(super) fn tracks(&self) -> impl Iterator<Item = (&'s Section<'a>, TrackKind, &'s OfferedCodec<'a>)> {
        self.taken.iter().filter_map(|taken| match taken.role {
            Role::Track(kind, codec) => Some((taken.section, kind, codec)),
            Role::DataChannel => None,
        })
    }

    /// Every m-line of the offer, and whether it is taken.
    pub(super) fn answers(&self) -> impl Iterator<Item = (&'s Section<'a>, Option<&Taken<'s, 'a>>)> {
        self.sections.iter().enumerate().map(|(i, section)| (section, self.taken.iter().find(|t| t.index == i)))
    }

    /// The m-line whose transport is that of all (RFC 8843 7.3.1): the first of its group that is taken.
    pub(super) fn tagged(&self, offer: &Description<'a>) -> Option<&'s Section<'a>> {
        let first = self.taken.first()?.section;
        let group = offer.bundles.iter().find(|group| group.contains(&first.mid))?;
        let position = |taken: &&Taken<'s, 'a>| group.iter().position(|mid| *mid == taken.section.mid);
        self.taken.iter().min_by_key(position).map(|taken| taken.section)
    }
}

/// The BUNDLE group that an m-line is in: this one, if any m-line was taken before.
fn bundle(offer: &Description<'_>, section: &Section<'_>, group: Option<usize>) -> Result<usize, InvalidOffer> {
    let found = offer.bundles.iter().position(|mids| mids.contains(&section.mid));
    found.filter(|found| group.is_none_or(|group| group == *found)).ok_or(InvalidOffer::NotBundled)
}
