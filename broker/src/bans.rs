//! Who may not connect for a time: client identifiers and networks that an operator has banned. In memory: a restart
//! lifts all bans. Whoever connects while nobody is banned pays a look at one number.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::limits::BANS_MAX;
use crate::time::Time;

/// An address, or all that share its first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    /// With the bits behind the prefix at 0. IPv4 addresses as IPv6 ones that are mapped to them.
    address: u128,
    /// Bits that count, of 128.
    bits: u8,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

impl Network {
    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        number(address) & mask(self.bits) == self.address
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self {
            address: number(address),
            bits: 128,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no address: allowed is 10.0.0.5, 10.0.0.0/8, 2001:db8::1 or 2001:db8::/32"
            )
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let of_family = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(of_family);
        if bits > of_family {
            return Err(wrong());
        }
        let bits = bits + (128 - of_family);
        Ok(Self {
            address: number(address) & mask(bits),
            bits,
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v6 = Ipv6Addr::from_bits(self.address);
        let (address, bits, of_family) = match v6.to_ipv4_mapped() {
            Some(v4) if self.bits >= 96 => (IpAddr::V4(v4), self.bits - 96, 32),
            _ => (IpAddr::V6(v6), self.bits, 128),
        };
        if bits == of_family {
            return address.fmt(f);
        }
        write!(f, "{address}/{bits}")
    }
}

/// Who is banned.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Banned {
    /// A client identifier.
    Client(Box<str>),
    /// Addresses.
    Network(Network),
}

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub who: Banned,
    /// Since when.
    pub since: Time,
    /// Until when.
    pub until: Time,
    /// Why, in the operator's words.
    pub why: String,
    /// Connects that it has refused.
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Lists {
    clients: HashMap<Box<str>, Ban>,
    networks: Vec<Ban>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Bans {
    len: AtomicUsize,
    /// Whether addresses have to be looked at.
    networks: AtomicUsize,
    lists: RwLock<Lists>,
}

impl Lists {
    fn forget_expired(&mut self, now: Time) {
        self.clients.retain(|_, ban| ban.until > now);
        self.networks.retain(|ban| ban.until > now);
    }

    fn len(&self) -> usize {
        self.clients.len() + self.networks.len()
    }
}

impl Bans {
    fn change<T>(&self, now: Time, change: impl FnOnce(&mut Lists) -> T) -> T {
        let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        lists.forget_expired(now);
        let changed = change(&mut lists);
        self.len.store(lists.len(), Ordering::Release);
        self.networks.store(lists.networks.len(), Ordering::Release);
        changed
    }

    /// Bans somebody, or changes a ban: false when [`BANS_MAX`] are banned.
    pub fn ban(&self, now: Time, ban: Ban) -> bool {
        self.change(now, |lists| {
            let is_full = lists.len() >= BANS_MAX;
            match &ban.who {
                Banned::Client(client) => {
                    if is_full && !lists.clients.contains_key(client) {
                        return false;
                    }
                    lists.clients.insert(client.clone(), ban);
                }
                Banned::Network(_) => {
                    let old = lists.networks.iter().position(|old| old.who == ban.who);
                    match old {
                        Some(at) => lists.networks[at] = ban,
                        None if is_full => return false,
                        None => lists.networks.push(ban),
                    }
                }
            }
            true
        })
    }

    /// Lifts a ban: whether there was one.
    pub fn lift(&self, now: Time, who: &Banned) -> bool {
        self.change(now, |lists| match who {
            Banned::Client(client) => lists.clients.remove(client).is_some(),
            Banned::Network(_) => {
                let before = lists.networks.len();
                lists.networks.retain(|ban| ban.who != *who);
                lists.networks.len() < before
            }
        })
    }

    /// All bans that hold, in order.
    #[must_use]
    pub fn list(&self, now: Time) -> Vec<Ban> {
        self.change(now, |lists| {
            let all = lists.clients.values().chain(&lists.networks);
            let mut all: Vec<Ban> = all.cloned().collect();
            all.sort_by(|one, other| one.who.cmp(&other.who));
            all
        })
    }

    /// Whether a client may not connect. `address` is asked for where it matters.
    #[inline]
    pub(crate) fn refuses(
        &self,
        client_id: &str,
        address: impl FnOnce() -> Option<IpAddr>,
        now: Time,
    ) -> bool {
        self.len.load(Ordering::Relaxed) > 0 && self.judge(client_id, address, now)
    }

    #[cold]
    fn judge(&self, client_id: &str, address: impl FnOnce() -> Option<IpAddr>, now: Time) -> bool {
        let holds = |ban: &Ban| ban.until > now;
        let address = (self.networks.load(Ordering::Acquire) > 0)
            .then(address)
            .flatten();
        let in_network = |ban: &Ban| match (&ban.who, address) {
            (Banned::Network(network), Some(address)) => network.contains(address),
            _ => false,
        };
        {
            let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
            let of_client = lists.clients.get(client_id).is_some_and(holds);
            let of_network = || {
                lists
                    .networks
                    .iter()
                    .any(|ban| holds(ban) && in_network(ban))
            };
            if !of_client && !of_network() {
                return false;
            }
        }
        let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        let Lists { clients, networks } = &mut *lists;
        let of_network = networks.iter_mut().find(|ban| in_network(ban));
        if let Some(ban) = clients.get_mut(client_id).or(of_network) {
            ban.refused += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn ban(who: Banned, until: u64) -> Ban {
        Ban {
            who,
            since: Time(0),
            until: Time(until),
            why: String::new(),
            refused: 0,
        }
    }

    #[test]
    fn a_network_holds_its_addresses_however_they_are_written() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.1.2.3", "11.0.0.0"),
            ("10.1.2.3/8", "10.0.0.1", "9.255.255.255"),
            ("10.0.0.5", "::ffff:10.0.0.5", "10.0.0.6"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("0.0.0.0/0", "255.1.1.1", "2001:db8::1"),
        ] {
            assert!(network(text).contains(inside.parse().unwrap()), "{text}");
            assert!(!network(text).contains(outside.parse().unwrap()), "{text}");
        }
        assert!(network("::/0").contains("2001:db8::1".parse().unwrap()));
        for text in ["", "10.0.0.0/33", "10.0.0", "x", "10.0.0.0/x", "::/129"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        for text in ["10.0.0.0/8", "10.0.0.5", "2001:db8::/32", "::1"] {
            assert_eq!(network(text).to_string(), text);
        }
    }

    #[test]
    fn a_ban_holds_for_its_time_and_counts_whom_it_refused() {
        let bans = Bans::default();
        let nowhere = || None;
        assert!(!bans.refuses("c", || unreachable!("nobody is banned"), Time(0)));
        assert!(bans.ban(Time(0), ban(Banned::Client("c".into()), 100)));
        assert!(bans.refuses("c", || unreachable!("no network is banned"), Time(99)));
        assert!(!bans.refuses("d", nowhere, Time(99)));
        assert!(!bans.refuses("c", nowhere, Time(100)));
        let of = Banned::Network(network("10.0.0.0/8"));
        assert!(bans.ban(Time(0), ban(of.clone(), 200)));
        let from = |address: &'static str| move || Some(address.parse().unwrap());
        assert!(bans.refuses("d", from("10.1.1.1"), Time(150)));
        assert!(!bans.refuses("d", from("11.1.1.1"), Time(150)));
        let [only] = &bans.list(Time(150))[..] else {
            panic!("the other one is over");
        };
        assert_eq!((&only.who, only.refused), (&of, 1));
        assert!(bans.lift(Time(150), &of));
        assert!(!bans.lift(Time(150), &of));
        assert!(!bans.refuses("d", from("10.1.1.1"), Time(150)));
    }

    #[test]
    fn the_list_is_bounded_and_one_that_is_over_makes_room() {
        let bans = Bans::default();
        for n in 0..BANS_MAX {
            assert!(bans.ban(Time(0), ban(Banned::Client(n.to_string().into()), 100)));
        }
        assert!(!bans.ban(Time(0), ban(Banned::Client("x".into()), 100)));
        let of = Banned::Network(network("10.0.0.0/8"));
        assert!(!bans.ban(Time(0), ban(of.clone(), 100)));
        assert!(bans.ban(Time(0), ban(Banned::Client("0".into()), 300)));
        assert!(bans.ban(Time(100), ban(of, 300)));
        assert_eq!(bans.list(Time(100)).len(), 2);
    }
}
