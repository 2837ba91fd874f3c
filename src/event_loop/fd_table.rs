//! Which source a descriptor number belongs to.
//!
//! Events find their source by token; the number is looked up only for calls
//! that name one, as `add_reader` does.

use std::os::fd::RawFd;

use tokioloop_reactor::Token;

/// Tokens by descriptor number; numbers are small and dense.
#[derive(Default)]
pub(crate) struct FdTable {
    tokens: Vec<Option<Token>>,
}

impl FdTable {
    pub(crate) fn get(&self, fd: RawFd) -> Option<Token> {
        self.tokens.get(usize::try_from(fd).ok()?).copied().flatten()
    }

    pub(crate) fn set(&mut self, fd: RawFd, token: Token) {
        let Ok(index) = usize::try_from(fd) else { return };
        if index >= self.tokens.len() {
            self.tokens.resize(index + 1, None);
        }
        if let Some(slot) = self.tokens.get_mut(index) {
            *slot = Some(token);
        }
    }

    /// Every number that belongs to a source.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (RawFd, Token)> {
        let numbered = self.tokens.iter().zip(0..);
        numbered.filter_map(|(token, fd)| token.map(|token| (fd, token)))
    }

    /// Forgets a number, unless it serves another source by now.
    pub(crate) fn forget(&mut self, fd: RawFd, token: Token) {
        let Ok(index) = usize::try_from(fd) else { return };
        if let Some(slot) = self.tokens.get_mut(index) {
            if *slot == Some(token) {
                *slot = None;
            }
        }
    }
}
