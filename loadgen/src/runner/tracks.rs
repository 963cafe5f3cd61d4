//! What arrived at subscribers: for each subscriber and lane the next number expected, and what was skipped. A number
//! below it is late if it was skipped, else a duplicate.

use std::collections::HashMap;
use std::sync::Arc;

use crate::outcome::{AudienceOutcome, Holes, Numbers};
use crate::plan::{Audience, Relation, Stream};

/// Gaps that are remembered for one track; beyond that the oldest is forgotten, and a late message in it counts as a
/// duplicate.
const GAPS_MAX: usize = 64;

/// What a delivery was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// In order and new.
    New,
    /// New, but behind a later one.
    Late,
    /// There was one before.
    Duplicate,
    /// The subscriber had not asked for it.
    Misdelivered,
}

#[derive(Debug, Clone, Copy, Default)]
struct Track {
    next: u32,
    received: u32,
}

/// What is wrong with a track; few have one.
#[derive(Debug, Default)]
struct Trouble {
    gaps: Vec<(u32, u32)>,
    /// Numbers of gaps that were forgotten, and what they are all below.
    forgotten: u32,
    forgotten_below: u32,
    duplicates: u32,
    late: u32,
}

/// The tracks of one audience, of the subscribers in one share.
#[derive(Debug)]
pub(crate) struct Tracks {
    kind: Kind,
    troubles: HashMap<(u32, u32), Trouble, ahash::RandomState>,
    pub(crate) outcome: AudienceOutcome,
}

#[derive(Debug)]
enum Kind {
    /// Each subscriber has a topic of its own, or publishes what is answered, and so has a few lanes: by subscriber,
    /// `lanes_each`. A lane is of subscriber `lane % owners`.
    Own {
        tracks: Vec<Track>,
        lanes_each: u32,
        owners: u32,
    },
    Many {
        tracks: HashMap<(u32, u32), Track, ahash::RandomState>,
        listed: Option<Arc<[Vec<u32>]>>,
        topics: u32,
    },
    /// By lane what the whole share got, and by member and lane what is next.
    Shared {
        numbers: HashMap<u32, Numbers, ahash::RandomState>,
        tracks: HashMap<(u32, u32), Track, ahash::RandomState>,
    },
}

impl Kind {
    fn own(lanes: u32, owners: u32, subscribers: u32) -> Self {
        let owners = owners.max(1);
        let lanes_each = (lanes / owners).max(1);
        let clients = subscribers.min(owners) as usize;
        Self::Own {
            tracks: vec![Track::default(); clients * lanes_each as usize],
            lanes_each,
            owners,
        }
    }
}

impl Tracks {
    /// Empty tracks. `subscribers` is the number of clients in the group.
    pub(crate) fn new(stream: &Stream, audience: &Audience, subscribers: u32) -> Self {
        let topics = stream.topics.max(1);
        let kind = match &audience.relation {
            Relation::Own => Kind::own(stream.lanes, topics, subscribers),
            Relation::Answers => Kind::own(stream.lanes, subscribers, subscribers),
            Relation::All => Kind::Many {
                tracks: HashMap::default(),
                listed: None,
                topics,
            },
            Relation::Listed(listed) => Kind::Many {
                tracks: HashMap::default(),
                listed: Some(Arc::clone(listed)),
                topics,
            },
            Relation::Shared => Kind::Shared {
                numbers: HashMap::default(),
                tracks: HashMap::default(),
            },
        };
        Self {
            kind,
            troubles: HashMap::default(),
            outcome: AudienceOutcome::default(),
        }
    }

    /// Whether the subscriber asked for the lane's topic here.
    pub(crate) fn wants(&self, subscriber: u32, lane: u32) -> bool {
        match &self.kind {
            Kind::Own { owners, .. } => lane % owners == subscriber,
            Kind::Many { listed, topics, .. } => listed.as_ref().is_none_or(|listed| {
                listed
                    .get((lane % topics) as usize)
                    .is_some_and(|clients| clients.binary_search(&subscriber).is_ok())
            }),
            Kind::Shared { .. } => true,
        }
    }

    /// Takes a delivery of a message that [`Tracks::wants`] says is wanted.
    pub(crate) fn arrived(&mut self, subscriber: u32, lane: u32, number: u32) -> Arrival {
        let key = (subscriber, lane);
        let track = match &mut self.kind {
            Kind::Own {
                tracks,
                lanes_each,
                owners,
            } => {
                let at = subscriber as usize * *lanes_each as usize + (lane / *owners) as usize;
                match tracks.get_mut(at) {
                    Some(track) => track,
                    None => return Arrival::Misdelivered,
                }
            }
            Kind::Many { tracks, .. } => tracks.entry(key).or_default(),
            Kind::Shared { numbers, tracks } => {
                let new = numbers.entry(lane).or_default().insert(number);
                let track = tracks.entry(key).or_default();
                track.received += u32::from(new);
                let in_order = number >= track.next;
                track.next = track.next.max(number.saturating_add(1));
                if new && in_order {
                    return Arrival::New;
                }
                let trouble = self.troubles.entry(key).or_default();
                if new {
                    trouble.late += 1;
                    return Arrival::Late;
                }
                trouble.duplicates += 1;
                return Arrival::Duplicate;
            }
        };
        if number == track.next {
            track.next = number.saturating_add(1);
            track.received += 1;
            return Arrival::New;
        }
        let trouble = self.troubles.entry(key).or_default();
        if number > track.next {
            if trouble.gaps.len() == GAPS_MAX {
                let (from, to) = trouble.gaps.remove(0);
                trouble.forgotten += to - from;
                trouble.forgotten_below = trouble.forgotten_below.max(to);
            }
            trouble.gaps.push((track.next, number));
            track.next = number.saturating_add(1);
            track.received += 1;
            return Arrival::New;
        }
        if trouble.fill(number) {
            track.received += 1;
            trouble.late += 1;
            Arrival::Late
        } else {
            trouble.duplicates += 1;
            Arrival::Duplicate
        }
    }

    /// Everything, for merging.
    pub(crate) fn finish(mut self) -> AudienceOutcome {
        let troubles = &mut self.troubles;
        let holes = &mut self.outcome.holes;
        let mut row = |subscriber: u32, lane: u32, track: Track| {
            let trouble = troubles.remove(&(subscriber, lane)).unwrap_or_default();
            if !trouble.gaps.is_empty() || trouble.forgotten > 0 {
                holes.push(Holes {
                    subscriber,
                    lane,
                    next: track.next,
                    gaps: trouble.gaps,
                    forgotten: trouble.forgotten,
                    forgotten_below: trouble.forgotten_below,
                });
            }
            let received = track.received;
            [subscriber, lane, received, trouble.duplicates, trouble.late]
        };
        let rows = &mut self.outcome.tracks;
        match self.kind {
            Kind::Own {
                tracks,
                lanes_each,
                owners,
            } => {
                for (at, track) in (0_u32..).zip(&tracks) {
                    if track.next > 0 {
                        let (subscriber, k) = (at / lanes_each, at % lanes_each);
                        rows.push(row(subscriber, k * owners + subscriber, *track));
                    }
                }
            }
            Kind::Many { tracks, .. } => {
                rows.extend(tracks.into_iter().map(|((s, l), t)| row(s, l, t)));
            }
            Kind::Shared { numbers, tracks } => {
                rows.extend(tracks.into_iter().map(|((s, l), t)| row(s, l, t)));
                self.outcome.numbers = numbers.into_iter().collect();
                self.outcome.numbers.sort_unstable_by_key(|(lane, _)| *lane);
            }
        }
        rows.sort_unstable();
        self.outcome
    }
}

impl Trouble {
    /// Takes a number out of the gaps: whether it was in one.
    fn fill(&mut self, number: u32) -> bool {
        let inside = |(from, to): &(u32, u32)| (*from..*to).contains(&number);
        let Some(at) = self.gaps.iter().position(inside) else {
            return false;
        };
        let (from, to) = self.gaps.remove(at);
        let rest = [(from, number), (number + 1, to)];
        self.gaps.extend(rest.into_iter().filter(|(a, b)| a < b));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Pace, Pick};
    use crate::template::Template;
    use codec::Qos;

    fn tracks(topics: u32, lanes: u32, relation: Relation, subscribers: u32) -> Tracks {
        let audience = Audience {
            group: 0,
            subscription: 0,
            qos: Qos::AtLeastOnce,
            relation,
            checked: true,
        };
        let stream = Stream {
            name: "s".to_owned(),
            group: 0,
            topic: Template::parse("t/{n}").unwrap(),
            topics,
            lanes,
            qos: Qos::AtLeastOnce,
            retain: false,
            payload_bytes: 24,
            text: None,
            pace: Pace::Once,
            burst: 1,
            window: 1,
            pick: Pick::InTurn,
            audiences: Vec::new(),
        };
        Tracks::new(&stream, &audience, subscribers)
    }

    #[test]
    fn what_is_skipped_and_comes_later_is_late_and_what_comes_again_a_duplicate() {
        for relation in [
            Relation::Own,
            Relation::All,
            Relation::Listed(vec![vec![0]].into()),
        ] {
            let mut tracks = tracks(1, 1, relation, 1);
            let seen: Vec<Arrival> = [0, 1, 5, 3, 3, 1, 2, 6]
                .into_iter()
                .map(|number| tracks.arrived(0, 0, number))
                .collect();
            use Arrival::{Duplicate, Late, New};
            assert_eq!(seen, [New, New, New, Late, Duplicate, Duplicate, Late, New]);
            // 0, 1, 2, 3, 5 and 6: only 4 is missing.
            assert_eq!(tracks.finish().tracks, [[0, 0, 6, 2, 2]]);
        }
    }

    #[test]
    fn a_topic_of_ones_own_with_several_publishers_has_a_track_for_each() {
        // Two topics, six publishers: lanes 1, 3 and 5 go to topic 1.
        let mut tracks = tracks(2, 6, Relation::Own, 2);
        assert!(tracks.wants(1, 5) && !tracks.wants(0, 5));
        assert_eq!(tracks.arrived(1, 5, 0), Arrival::New);
        assert_eq!(tracks.arrived(1, 3, 0), Arrival::New);
        assert_eq!(tracks.arrived(1, 5, 1), Arrival::New);
        assert_eq!(tracks.finish().tracks, [[1, 3, 1, 0, 0], [1, 5, 2, 0, 0]]);
    }

    #[test]
    fn answers_are_tracked_by_publisher_over_all_its_topics() {
        // Two publishers, six topics: publisher 1 has lanes 1, 3 and 5.
        let mut tracks = tracks(6, 6, Relation::Answers, 2);
        assert!(tracks.wants(1, 5) && !tracks.wants(0, 5) && tracks.wants(0, 4));
        assert_eq!(tracks.arrived(1, 5, 0), Arrival::New);
        assert_eq!(tracks.arrived(1, 3, 1), Arrival::New);
        assert_eq!(tracks.arrived(1, 3, 0), Arrival::Late);
        assert_eq!(tracks.arrived(1, 5, 0), Arrival::Duplicate);
        assert_eq!(tracks.finish().tracks, [[1, 3, 2, 0, 1], [1, 5, 1, 1, 0]]);
        // Six publishers, two topics: each has one lane.
        let tracks = super::tests::tracks(2, 6, Relation::Answers, 6);
        assert!(tracks.wants(5, 5) && !tracks.wants(1, 5));
    }

    #[test]
    fn listed_subscribers_get_only_their_topics() {
        let tracks = tracks(2, 2, Relation::Listed(vec![vec![3], vec![1, 3]].into()), 4);
        assert!(tracks.wants(3, 0) && tracks.wants(1, 1) && !tracks.wants(1, 0));
    }

    #[test]
    fn members_of_a_share_get_each_number_once_between_them() {
        let mut tracks = tracks(1, 1, Relation::Shared, 2);
        assert_eq!(tracks.arrived(0, 0, 0), Arrival::New);
        assert_eq!(tracks.arrived(1, 0, 3), Arrival::New);
        assert_eq!(tracks.arrived(1, 0, 1), Arrival::Late);
        assert_eq!(tracks.arrived(0, 0, 3), Arrival::Duplicate);
        let outcome = tracks.finish();
        assert_eq!(outcome.tracks, [[0, 0, 1, 1, 0], [1, 0, 2, 0, 1]]);
        assert_eq!(outcome.numbers[0].1.len(), 3);
    }
}
