//! Names of sources that may safely outlive them.

use std::fmt;

use slab::Slab;

/// Half of a `usize` is the slot, the other half the generation.
const INDEX_BITS: u32 = usize::BITS / 2;
const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;

/// The name of one registration: a slot and a generation, which tells the uses of
/// the slot apart.
///
/// A token is never trusted: after its source has gone it finds nothing, even
/// if the slot or the descriptor number is reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(usize);

impl Token {
    /// The waker's event. No slab slot has this index.
    pub(crate) const WAKE: Self = Self(INDEX_MASK);

    #[inline]
    fn new(index: usize, generation: usize) -> Self {
        debug_assert!(index < INDEX_MASK, "slot {index} does not fit a token");
        Self(index | (generation << INDEX_BITS))
    }

    #[inline]
    fn index(self) -> usize {
        self.0 & INDEX_MASK
    }

    #[inline]
    fn generation(self) -> usize {
        self.0 >> INDEX_BITS
    }

    /// The form that the kernel hands back.
    #[inline]
    pub fn to_bits(self) -> usize {
        self.0
    }

    /// The inverse of [`Token::to_bits`].
    #[inline]
    pub fn from_bits(bits: usize) -> Self {
        Self(bits)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

/// Sources by token.
#[derive(Debug)]
pub struct Sources<T> {
    slots: Slab<Slot<T>>,
    generation: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: usize,
    source: T,
}

impl<T> Sources<T> {
    /// An empty set.
    pub fn new() -> Self {
        Self { slots: Slab::new(), generation: 0 }
    }

    /// Keeps a source and names it.
    pub fn insert(&mut self, source: T) -> Token {
        // One counter for all slots: a token repeats only if the counter has
        // wrapped and meets the same slot again.
        self.generation = (self.generation + 1) & INDEX_MASK;
        let generation = self.generation;
        Token::new(self.slots.insert(Slot { generation, source }), generation)
    }

    /// The source, unless it has gone.
    // HOT: proto
    #[inline]
    pub fn get(&self, token: Token) -> Option<&T> {
        match self.slots.get(token.index()) {
            Some(slot) if slot.generation == token.generation() => Some(&slot.source),
            _ => None,
        }
    }

    /// The source, to be changed, unless it has gone.
    #[inline]
    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        match self.slots.get_mut(token.index()) {
            Some(slot) if slot.generation == token.generation() => Some(&mut slot.source),
            _ => None,
        }
    }

    /// Takes a source out; its token finds nothing from now on.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        self.get(token)?;
        self.slots.try_remove(token.index()).map(|slot| slot.source)
    }

    /// Every source.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().map(|(_, slot)| &slot.source)
    }

    /// Takes every source out.
    pub fn drain(&mut self) -> Vec<T> {
        self.slots.drain().map(|slot| slot.source).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

impl<T> Default for Sources<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_finds_nothing_after_its_source_has_gone() {
        let mut sources = Sources::new();
        let first = sources.insert("first");
        assert_eq!(sources.remove(first), Some("first"));
        let second = sources.insert("second");
        assert_eq!(first.index(), second.index());
        assert_eq!(sources.get(first), None);
        assert_eq!(sources.remove(first), None);
        assert_eq!(sources.get(second), Some(&"second"));
    }

    #[test]
    fn tokens_survive_the_trip_through_the_kernel() {
        let mut sources = Sources::new();
        for value in 0..1000 {
            let token = sources.insert(value);
            assert_eq!(Token::from_bits(token.to_bits()), token);
            assert_ne!(token, Token::WAKE);
        }
    }
}
