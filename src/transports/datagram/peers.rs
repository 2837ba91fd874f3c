//! Who sent lately: most endpoints talk to few peers, so the tuple that one
//! datagram came with serves for the next, and an answer to it needs no look
//! into the tuple.

use tokioloop_reactor::RawAddress;

use crate::py::Owned;

/// Slots that the table grows to, from one, as long as peers displace others.
const MAX_SLOTS: usize = 64;

/// Addresses in both forms; each has one slot it may be in.
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
        let index = slot_of(raw, self.slots.len());
        let peer = self.slots.get(index)?.as_ref().filter(|peer| peer.raw == *raw)?;
        self.latest = index;
        Some(&peer.tuple)
    }

    /// Notes an address that was not known; returns what it displaces, for the
    /// caller to drop.
    pub(super) fn insert(&mut self, raw: RawAddress, tuple: Owned) -> Option<impl Sized + use<>> {
        if self.slots.is_empty() {
            self.slots.push(None);
        } else if self.slots.len() < MAX_SLOTS && self.is_taken(&raw) {
            self.grow();
        }
        let index = slot_of(&raw, self.slots.len());
        self.latest = index;
        self.slots.get_mut(index)?.replace(Peer { raw, tuple })
    }

    /// The address behind the tuple that came with the last datagram.
    #[inline]
    pub(super) fn latest(&self, tuple: *mut pyo3::ffi::PyObject) -> Option<&RawAddress> {
        let peer = self.slots.get(self.latest)?.as_ref()?;
        (peer.tuple.as_ptr() == tuple).then_some(&peer.raw)
    }

    fn is_taken(&self, raw: &RawAddress) -> bool {
        self.slots.get(slot_of(raw, self.slots.len())).is_some_and(Option::is_some)
    }

    /// Twice the slots. A slot's peers part between two, so that none is lost.
    fn grow(&mut self) {
        let count = self.slots.len() * 2;
        let old = std::mem::take(&mut self.slots);
        self.slots.resize_with(count, || None);
        for peer in old.into_iter().flatten() {
            if let Some(slot) = self.slots.get_mut(slot_of(&peer.raw, count)) {
                *slot = Some(peer);
            }
        }
    }
}

/// The slot for an address in a table of so many, a power of two.
#[inline]
fn slot_of(raw: &RawAddress, count: usize) -> usize {
    // Multiplication carries every byte's difference into the high bits.
    let hash = raw.as_bytes().chunks(8).fold(0_u64, |hash, chunk| {
        let word = chunk.iter().fold(0, |word, &byte| (word << 8) | u64::from(byte));
        (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    (hash >> 32) as usize & count.wrapping_sub(1)
}
