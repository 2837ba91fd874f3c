//! What is said over a wire: how a request looks and when its reply is complete.

use std::io;

/// Why a connection was given up. Counted by label in the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) String);

impl Fault {
    pub(crate) fn new(label: &str) -> Self {
        Self(label.to_owned())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(_) => Self(format!("{:?}", error.kind())),
            None => Self(error.to_string()),
        }
    }
}

/// One kind of request and reply, shared by all connections of a run.
pub(crate) trait Exchange {
    /// How far one connection has read its current reply.
    type Reply: Default;

    /// The bytes of a request; equal arguments give equal bytes.
    fn request(&mut self, stamp: Stamp) -> &[u8];

    /// Takes the next bytes of the reply to `stamp`; true once it is complete.
    fn receive(
        &mut self,
        stamp: Stamp,
        reply: &mut Self::Reply,
        bytes: &[u8],
    ) -> Result<bool, Fault>;
}

/// Names one message: the connection and its place in the connection's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) connection: u32,
    pub(crate) sequence: u32,
}

impl Stamp {
    fn to_bytes(self) -> [u8; STAMP_SIZE] {
        let word = (u64::from(self.connection) << 32) | u64::from(self.sequence);
        word.to_le_bytes()
    }
}

/// A message of fixed length that must come back unchanged.
///
/// Every message begins with its stamp, so that a reply to another connection, a lost
/// one or a doubled one is noticed at once. The rest is compared for one message in
/// `FULL_CHECK_EVERY`, which keeps the client cheaper than any server.
pub(crate) struct Echo {
    payload: Vec<u8>,
}

impl Echo {
    pub(crate) fn new(size: usize) -> Self {
        // A period that is no power of two: a chunk put in the wrong place shows.
        Self { payload: (0..size).map(|index| (index % 251) as u8).collect() }
    }

    fn stamp(&mut self, stamp: Stamp) {
        for (place, byte) in self.payload.iter_mut().zip(stamp.to_bytes()) {
            *place = byte;
        }
    }
}

impl Exchange for Echo {
    /// Bytes of the reply so far.
    type Reply = usize;

    fn request(&mut self, stamp: Stamp) -> &[u8] {
        self.stamp(stamp);
        &self.payload
    }

    fn receive(&mut self, stamp: Stamp, reply: &mut usize, bytes: &[u8]) -> Result<bool, Fault> {
        let start = *reply;
        let end = start + bytes.len();
        if end > self.payload.len() {
            return Err(Fault::new("reply too long"));
        }
        let checked = if stamp.sequence % FULL_CHECK_EVERY == 0 {
            bytes.len()
        } else {
            STAMP_SIZE.saturating_sub(start).min(bytes.len())
        };
        if checked > 0 {
            self.stamp(stamp);
            if self.payload.get(start..start + checked) != bytes.get(..checked) {
                return Err(Fault::new("reply differs"));
            }
        }
        *reply = end;
        Ok(end == self.payload.len())
    }
}

const STAMP_SIZE: usize = size_of::<u64>();
const FULL_CHECK_EVERY: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u32) -> Stamp {
        Stamp { connection: 3, sequence }
    }

    #[test]
    fn an_echo_is_complete_with_its_last_byte_however_it_is_cut() {
        for cut in [1, 7, 8, 9, 500] {
            let mut echo = Echo::new(1000);
            let sent = echo.request(stamp(64)).to_vec();
            let mut reply = 0;
            let mut finished = 0;
            for chunk in sent.chunks(cut) {
                finished += usize::from(echo.receive(stamp(64), &mut reply, chunk).unwrap());
            }
            assert_eq!((finished, reply), (1, 1000));
        }
    }

    #[test]
    fn the_reply_to_another_connection_is_noticed() {
        let mut echo = Echo::new(100);
        let other = echo.request(Stamp { connection: 4, sequence: 1 }).to_vec();
        let fault = echo.receive(stamp(1), &mut 0, &other).unwrap_err();
        assert_eq!(fault, Fault::new("reply differs"));
    }

    #[test]
    fn a_changed_byte_is_noticed_in_fully_checked_messages() {
        let mut echo = Echo::new(1000);
        let mut sent = echo.request(stamp(128)).to_vec();
        sent[900] ^= 1;
        assert!(echo.receive(stamp(128), &mut 0, &sent).is_err());
    }

    #[test]
    fn too_many_bytes_are_noticed() {
        let mut echo = Echo::new(10);
        let mut sent = echo.request(stamp(1)).to_vec();
        sent.push(0);
        let fault = echo.receive(stamp(1), &mut 0, &sent).unwrap_err();
        assert_eq!(fault, Fault::new("reply too long"));
    }

    #[test]
    fn messages_shorter_than_a_stamp_are_echoed_too() {
        let mut echo = Echo::new(3);
        let sent = echo.request(stamp(1)).to_vec();
        assert!(echo.receive(stamp(1), &mut 0, &sent).unwrap());
    }
}
