//! Recent senders. Most endpoints talk to few peers, so the address tuple made for one
//! datagram is used again for the next, and a reply to it is sent without parsing the
//! tuple.

use tokioloop_reactor::RawAddress;

use crate::py::Owned;

/// Most slots. The table doubles until then when half of its slots are taken; a full one
/// has 60 KB, with the tuples.
const MAX_SLOTS: usize = 256;
/// Slots probed per address, from the one that its hash gives.
const REACH: usize = 8;

/// An open-addressing table of addresses in both forms. Entries are replaced, never
/// removed, so a free slot ends a search.
pub(super) struct Peers<T = Owned> {
    slots: Vec<Option<Peer<T>>>,
    taken: usize,
    /// The slot of the last datagram's sender.
    latest: usize,
}

struct Peer<T> {
    raw: RawAddress,
    /// The address as Python has it, which cannot be part of a reference cycle.
    tuple: T,
}

impl<T> Default for Peers<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), taken: 0, latest: 0 }
    }
}

impl Peers {
    /// Whether `tuple` is the object that came with the last datagram.
    #[inline]
    pub(super) fn is_latest(&self, tuple: *mut pyo3::ffi::PyObject) -> bool {
        self.peer(self.latest).is_some_and(|peer| peer.tuple.as_ptr() == tuple)
    }
}

impl<T> Peers<T> {
    /// The tuple of an address, if it is known; it becomes the latest sender's.
    #[inline]
    pub(super) fn find(&mut self, raw: &RawAddress) -> Option<&T> {
        let mut met = self.reach(raw).map_while(|index| Some((index, self.peer(index)?)));
        let (index, _) = met.find(|(_, peer)| peer.raw == *raw)?;
        self.latest = index;
        self.peer(index).map(|peer| &peer.tuple)
    }

    /// Adds an address that was not known, as the latest sender's. Returns the entry that
    /// it replaces, for the caller to drop.
    pub(super) fn insert(&mut self, raw: RawAddress, tuple: T) -> Option<impl Sized + use<T>> {
        if self.taken * 2 >= self.slots.len() && self.slots.len() < MAX_SLOTS {
            self.grow();
        }
        let index = match self.free_slot(&raw) {
            Some(index) => {
                self.taken += 1;
                index
            }
            // Not the latest sender, who is likely to send again.
            None => self.reach(&raw).find(|&index| index != self.latest)?,
        };
        self.latest = index;
        self.slots.get_mut(index)?.replace(Peer { raw, tuple })
    }

    /// The address that the last datagram came from.
    #[inline]
    pub(super) fn latest(&self) -> Option<&RawAddress> {
        self.peer(self.latest).map(|peer| &peer.raw)
    }

    #[inline]
    fn peer(&self, index: usize) -> Option<&Peer<T>> {
        self.slots.get(index)?.as_ref()
    }

    /// The slots that an address may be in.
    #[inline]
    fn reach(&self, raw: &RawAddress) -> impl Iterator<Item = usize> + use<T> {
        let (first, mask) = (hash(raw), self.slots.len().wrapping_sub(1));
        (0..REACH).map(move |step| first.wrapping_add(step) & mask)
    }

    fn free_slot(&self, raw: &RawAddress) -> Option<usize> {
        self.reach(raw).find(|&index| matches!(self.slots.get(index), Some(None)))
    }

    /// Doubles the number of slots, a power of two. An entry that finds no slot, which
    /// hardly happens, is dropped and learned again.
    fn grow(&mut self) {
        let count = (self.slots.len() * 2).max(REACH);
        let old = std::mem::take(&mut self.slots);
        self.slots.resize_with(count, || None);
        self.taken = 0;
        for peer in old.into_iter().flatten() {
            let free = self.free_slot(&peer.raw);
            if let Some(slot) = free.and_then(|index| self.slots.get_mut(index)) {
                *slot = Some(peer);
                self.taken += 1;
            }
        }
    }
}

#[inline]
fn hash(raw: &RawAddress) -> usize {
    // Multiplication carries every byte's difference into the high bits.
    let mix =
        |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let chunks = raw.as_bytes().chunks_exact(8);
    let rest = chunks.remainder();
    let words = chunks.map(|chunk| chunk.try_into().map_or(0, u64::from_ne_bytes));
    (words.chain(rest.iter().map(|&byte| byte.into())).fold(0, mix) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

    fn v4(port: u16) -> RawAddress {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into()
    }

    /// A table that has met peers with these ports.
    fn met(ports: impl Iterator<Item = u16>) -> Peers<u16> {
        let mut peers = Peers::default();
        for port in ports {
            assert!(peers.find(&v4(port)).is_none());
            peers.insert(v4(port), port);
            assert_eq!(peers.latest(), Some(&v4(port)));
        }
        peers
    }

    #[test]
    fn a_table_without_slots_knows_nobody() {
        let mut peers = Peers::<u16>::default();
        assert!(peers.find(&v4(1)).is_none());
        assert!(peers.latest().is_none());
    }

    #[test]
    fn a_hundred_peers_are_all_kept() {
        let mut peers = met(0..100);
        for port in 0..100 {
            assert_eq!(peers.find(&v4(port)), Some(&port));
            assert_eq!(peers.latest(), Some(&v4(port)));
        }
    }

    #[test]
    fn a_full_table_keeps_who_was_met_last_and_mixes_nobody_up() {
        let mut peers = met(0..5000);
        assert_eq!(peers.slots.len(), MAX_SLOTS);
        let known = (0..5000).filter(|&port| {
            let found = peers.find(&v4(port)).copied();
            assert!(found.is_none_or(|found| found == port));
            found.is_some()
        });
        assert!(known.count() > MAX_SLOTS / 2);
        for port in 5000..6000 {
            let last = peers.latest().copied();
            peers.insert(v4(port), port);
            assert!(last.is_some_and(|last| peers.find(&last).is_some()));
            assert_eq!(peers.find(&v4(port)), Some(&port));
        }
    }

    #[test]
    fn addresses_of_every_length_have_a_slot() {
        let mut peers = Peers::default();
        let v6 = |port| SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 7, 3).into();
        peers.insert(v6(1), 1);
        peers.insert(v4(1), 2);
        peers.insert(RawAddress::none(), 3);
        assert_eq!(peers.find(&v6(1)), Some(&1));
        assert_eq!(peers.find(&v4(1)), Some(&2));
        assert_eq!(peers.find(&RawAddress::none()), Some(&3));
        assert!(peers.find(&v6(2)).is_none());
    }
}
