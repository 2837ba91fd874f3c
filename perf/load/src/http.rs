//! HTTP/1.1 keep-alive requests and the recognition of their replies.
//!
//! Only what a benchmark server answers: a status of 200 and a `content-length`. Anything
//! else is a fault, so that an error page is never counted as a message.

use crate::exchange::{Exchange, Fault, Stamp};

/// One GET request, repeated.
pub(crate) struct Http {
    request: Vec<u8>,
}

impl Http {
    pub(crate) fn new(path: &str) -> Self {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: tokioloop-load\r\n\
             Accept: */*\r\nConnection: keep-alive\r\n\r\n"
        );
        Self { request: request.into_bytes() }
    }
}

/// How far a reply has come.
#[derive(Debug, Default)]
pub(crate) struct HttpReply {
    head: Vec<u8>,
    /// Bytes of the body still missing; None while the head is not complete.
    missing: Option<usize>,
}

impl Exchange for Http {
    type Reply = HttpReply;

    fn request(&mut self, _stamp: Stamp) -> &[u8] {
        &self.request
    }

    fn receive(&mut self, _: Stamp, reply: &mut HttpReply, bytes: &[u8]) -> Result<bool, Fault> {
        let (missing, body) = match reply.missing {
            Some(missing) => (missing, bytes.len()),
            None => {
                // The end may be split over two reads, so the search starts a little earlier.
                let from = reply.head.len().saturating_sub(HEAD_END.len() - 1);
                reply.head.extend_from_slice(bytes);
                let tail = reply.head.get(from..).unwrap_or_default();
                let Some(end) = tail.windows(HEAD_END.len()).position(|part| part == HEAD_END)
                else {
                    return match reply.head.len() {
                        ..=HEAD_LIMIT => Ok(false),
                        _ => Err(Fault::new("endless head")),
                    };
                };
                let end = from + end + HEAD_END.len();
                let length = body_length(reply.head.get(..end).unwrap_or_default())?;
                (length, reply.head.len() - end)
            }
        };
        let missing = missing.checked_sub(body).ok_or_else(|| Fault::new("reply too long"))?;
        reply.missing = Some(missing);
        Ok(missing == 0)
    }
}

fn body_length(head: &[u8]) -> Result<usize, Fault> {
    let head = std::str::from_utf8(head).map_err(|_| Fault::new("head is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or("none");
    if status != "200" {
        return Err(Fault(format!("status {status}")));
    }
    lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| Fault::new("no content-length"))
}

const HEAD_END: &[u8] = b"\r\n\r\n";
const HEAD_LIMIT: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn receive_in_chunks(text: &[u8], cut: usize) -> Result<Vec<bool>, Fault> {
        let mut http = Http::new("/");
        let mut reply = HttpReply::default();
        text.chunks(cut).map(|chunk| http.receive(Stamp::default(), &mut reply, chunk)).collect()
    }

    #[test]
    fn a_reply_is_complete_with_its_last_byte_however_it_is_cut() {
        let text = b"HTTP/1.1 200 OK\r\nserver: x\r\nContent-Length: 5\r\n\r\nhello";
        for cut in 1..=text.len() {
            let steps = receive_in_chunks(text, cut).unwrap();
            assert_eq!(steps.iter().filter(|done| **done).count(), 1, "cut by {cut}");
            assert_eq!(steps.last(), Some(&true), "cut by {cut}");
        }
    }

    #[test]
    fn an_empty_body_completes_with_the_head() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(receive_in_chunks(text, text.len()), Ok(vec![true]));
    }

    #[test]
    fn other_statuses_and_surplus_bytes_are_faults() {
        let missing = receive_in_chunks(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", 100);
        assert_eq!(missing, Err(Fault::new("status 503")));
        let surplus = receive_in_chunks(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab", 100);
        assert_eq!(surplus, Err(Fault::new("reply too long")));
        let unknown = receive_in_chunks(b"HTTP/1.1 200 OK\r\n\r\n", 100);
        assert_eq!(unknown, Err(Fault::new("no content-length")));
    }
}
