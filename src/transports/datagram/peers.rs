//! Who sent lately: most endpoints talk to few peers, so the tuple that one
//! datagram came with serves for the next, and an answer to it needs no look
//! into the tuple.

use tokioloop_reactor::RawAddress;

use crate::py::Owned;

/// Slots that the table grows to, from two, as long as peers displace others.
const MAX_SLOTS: usize = 512;

/// Addresses in both forms; each has two slots it may be in, an even one and the next.
#[derive(Default)]
pub(super) struct Peers {
    slots: Vec<Option<Peer>>,
    /// The slot of the last datagram's sender.
    latest: usize,
}

struct Peer {
    raw: RawAddress,
    /// What Python has for it: nothing that can be part of a cycle.
    tuple: Owned,
}

impl Peers {
    /// The tuple of an address that is known.
    #[inline]
    pub(super) fn find(&mut self, raw: &RawAddress) -> Option<&Owned> {
        let first = first_slot(raw, self.slots.len());
        let pair = self.slots.get(first..first + 2)?;
        self.latest = first + pair.iter().position(|slot| holds(slot, raw))?;
        self.slots.get(self.latest)?.as_ref().map(|peer| &peer.tuple)
    }

    /// Notes an address that was not known; returns what it displaces, for the
    /// caller to drop.
    pub(super) fn insert(&mut self, raw: RawAddress, tuple: Owned) -> Option<impl Sized + use<>> {
        let index = loop {
            if let Some(index) = self.free_slot(&raw) {
                break index;
            }
            if self.slots.len() >= MAX_SLOTS {
                // Not the one that was met last, which may be in use.
                break first_slot(&raw, self.slots.len()) | usize::from(self.latest & 1 == 0);
            }
            self.grow();
        };
        self.latest = index;
        self.slots.get_mut(index)?.replace(Peer { raw, tuple })
    }

    /// Whether that is the tuple which came with the last datagram.
    #[inline]
    pub(super) fn is_latest(&self, tuple: *mut pyo3::ffi::PyObject) -> bool {
        self.latest_peer().is_some_and(|peer| peer.tuple.as_ptr() == tuple)
    }

    /// The address that the last datagram came from.
    #[inline]
    pub(super) fn latest(&self) -> Option<&RawAddress> {
        self.latest_peer().map(|peer| &peer.raw)
    }

    fn latest_peer(&self) -> Option<&Peer> {
        self.slots.get(self.latest)?.as_ref()
    }

    fn free_slot(&self, raw: &RawAddress) -> Option<usize> {
        let first = first_slot(raw, self.slots.len());
        (first..first + 2).find(|&index| matches!(self.slots.get(index), Some(None)))
    }

    /// Twice the slots. Those of a pair part between two, so that none is lost.
    fn grow(&mut self) {
        let count = (self.slots.len() * 2).max(2);
        let old = std::mem::take(&mut self.slots);
        self.slots.resize_with(count, || None);
        for peer in old.into_iter().flatten() {
            let free = self.free_slot(&peer.raw);
            if let Some(slot) = free.and_then(|index| self.slots.get_mut(index)) {
                *slot = Some(peer);
            }
        }
    }
}

#[inline]
fn holds(slot: &Option<Peer>, raw: &RawAddress) -> bool {
    slot.as_ref().is_some_and(|peer| peer.raw == *raw)
}

/// The first slot for an address in a table of so many, a power of two.
#[inline]
fn first_slot(raw: &RawAddress, count: usize) -> usize {
    // Multiplication carries every byte's difference into the high bits.
    let mix =
        |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let chunks = raw.as_bytes().chunks_exact(8);
    let rest = chunks.remainder();
    let words = chunks.map(|chunk| chunk.try_into().map_or(0, u64::from_ne_bytes));
    let hash = words.chain(rest.iter().map(|&byte| byte.into())).fold(0, mix);
    (hash >> 32) as usize & (count.max(2) - 2)
}
