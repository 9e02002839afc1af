//! What travels between the agent and the root runner: frames of a kind, a length and a payload, on
//! a Unix socket.
//!
//! Both sides read and write at the same time and neither ever waits for the other to read: so they
//! cannot wait for each other for ever. A frame that is too large or of no known kind ends the
//! connection.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use pistat_protocol::{codec::MAX_PAYLOAD_BYTES, id::RunId, task::Ack};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// The kind's byte and the length's four.
const HEAD_BYTES: usize = 5;

/// The socket of one run, in the runner's folder.
pub(crate) fn run_socket(folder: &Path, run: RunId) -> PathBuf {
    folder.join(format!("{run}.sock"))
}

/// The socket of one run, as the agent finds it: beside `/run/pistat-runner.sock` is the folder
/// `/run/pistat-runner`.
pub(crate) fn run_socket_beside(runner_socket: &Path, run: RunId) -> PathBuf {
    run_socket(&runner_socket.with_extension(""), run)
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Agent: make a session. The answer is [`Kind::Session`].
    AskSession,
    /// Agent: the bytes of a signed order to start a run, for which a nonce is asked. The answer is
    /// [`Kind::Nonce`].
    Prepare,
    /// Agent: the bytes of the same order, signed again with the nonce. Over the same connection.
    Execute,
    /// Agent: a run's id, to be heard of again.
    Attach,
    /// Agent: the bytes of a signed cancellation.
    Cancel,
    /// Agent: a [`Told`].
    Told,
    /// Runner: the session that orders must name from now on.
    Session,
    /// Runner: the nonce that the order has to name, for a few seconds.
    Nonce,
    /// Runner: the run is in its hands.
    Accepted,
    /// Runner: a sentence why not; nothing was started.
    Refused,
    /// Runner: it has never started this run.
    Unknown,
    /// Runner: another instance has this run and cannot be reached at the moment.
    Busy,
    /// Runner: the payload of a report.
    Report,
    /// Runner: the payload of a chunk of output.
    Output,
    /// Runner: the payload of the retained repetition.
    Repetition,
    /// Runner: the controller has everything, and the run is forgotten.
    Done,
}

/// Every kind with its byte.
const KINDS: [(Kind, u8); 16] = [
    (Kind::AskSession, b's'),
    (Kind::Prepare, b'p'),
    (Kind::Execute, b'x'),
    (Kind::Attach, b'a'),
    (Kind::Cancel, b'c'),
    (Kind::Told, b't'),
    (Kind::Session, b'S'),
    (Kind::Nonce, b'K'),
    (Kind::Accepted, b'A'),
    (Kind::Refused, b'N'),
    (Kind::Unknown, b'U'),
    (Kind::Busy, b'B'),
    (Kind::Report, b'R'),
    (Kind::Output, b'O'),
    (Kind::Repetition, b'F'),
    (Kind::Done, b'D'),
];

/// What the agent tells of the controller: always the newest state of things. The counters are the
/// agent's own and start anew with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Counts connections; absent while disconnected.
    pub connection: Option<u64>,
    /// Counts requests to repeat everything.
    pub repeats: u64,
    /// The newest acknowledgement.
    pub ack: Option<Ack>,
    /// Counts acknowledgements.
    pub acks: u64,
}

/// What happened on a connection.
#[derive(Debug)]
pub(crate) enum Step {
    /// A frame came.
    Frame(Kind, Bytes),
    /// Everything that was to be said has been handed to the system.
    Flushed,
    /// The other side has closed.
    Closed,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: UnixStream,
    input: BytesMut,
    output: BytesMut,
}

impl Wire {
    /// A connection that stands.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, input: BytesMut::new(), output: BytesMut::new() }
    }

    /// Says something, as soon as [`Wire::step`] is given time.
    pub(crate) fn push(&mut self, kind: Kind, payload: &[u8]) {
        let byte = KINDS.iter().find(|(of, _)| *of == kind).map_or(0, |(_, byte)| *byte);
        self.output.put_u8(byte);
        // A payload of ours is at most as large as one of MQTT's.
        self.output.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        self.output.put_slice(payload);
    }

    /// Whether everything has been handed to the system: only then is there more to say, so that
    /// nothing piles up here.
    pub(crate) fn is_flushed(&self) -> bool {
        self.output.is_empty()
    }

    /// The next thing that happens. May be dropped at any point.
    ///
    /// # Errors
    /// The connection broke, or what came is not a frame.
    pub(crate) async fn step(&mut self) -> io::Result<Step> {
        loop {
            if let Some((kind, payload)) = self.take_frame()? {
                return Ok(Step::Frame(kind, payload));
            }
            let wants_to_write = !self.output.is_empty();
            let (mut read, mut write) = self.stream.split();
            tokio::select! {
                biased;
                written = write.write_buf(&mut self.output), if wants_to_write => {
                    written?;
                    if self.output.is_empty() {
                        return Ok(Step::Flushed);
                    }
                }
                length = read.read_buf(&mut self.input) => if length? == 0 {
                    return Ok(Step::Closed);
                },
            }
        }
    }

    /// The next frame; `None` when the other side has closed.
    ///
    /// # Errors
    /// As [`Wire::step`].
    pub(crate) async fn frame(&mut self) -> io::Result<Option<(Kind, Bytes)>> {
        loop {
            match self.step().await? {
                Step::Frame(kind, payload) => return Ok(Some((kind, payload))),
                Step::Flushed => {}
                Step::Closed => return Ok(None),
            }
        }
    }

    /// Waits until everything has been handed to the system. What comes meanwhile is dropped.
    ///
    /// # Errors
    /// As [`Wire::step`].
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while !self.is_flushed() {
            if let Step::Closed = self.step().await? {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }

    fn take_frame(&mut self) -> io::Result<Option<(Kind, Bytes)>> {
        let Some((head, rest)) = self.input.split_at_checked(HEAD_BYTES) else { return Ok(None) };
        let length = head[1..].iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
        let kind = KINDS.iter().find(|(_, byte)| *byte == head[0]).map(|(kind, _)| *kind);
        let Some(kind) = kind.filter(|_| length <= MAX_PAYLOAD_BYTES) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what came is not a frame"));
        };
        if rest.len() < length {
            return Ok(None);
        }
        self.input.advance(HEAD_BYTES);
        let payload = self.input.split_to(length).freeze();
        Ok(Some((kind, payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_arrive_as_they_were_said_however_they_are_cut() {
        let (one, mut other) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(one);
        let bytes = b"x\0\0\0\x05helloD\0\0\0\0";
        let cut = async {
            for byte in bytes {
                other.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            other
        };
        let (other, first) = tokio::join!(cut, wire.frame());
        assert_eq!(first.unwrap().unwrap(), (Kind::Execute, Bytes::from_static(b"hello")));
        assert_eq!(wire.frame().await.unwrap().unwrap(), (Kind::Done, Bytes::new()));
        drop(other);
        assert!(wire.frame().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_no_frame_ends_the_connection() {
        for bytes in [&b"?\0\0\0\0"[..], b"x\xff\xff\xff\xff"] {
            let (one, mut other) = UnixStream::pair().unwrap();
            other.write_all(bytes).await.unwrap();
            assert!(Wire::new(one).frame().await.is_err());
        }
    }

    #[tokio::test]
    async fn two_that_both_talk_never_wait_for_each_other() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Wire::new(one), Wire::new(other));
        let much = vec![7; MAX_PAYLOAD_BYTES];
        for wire in [&mut one, &mut other] {
            for _ in 0..8 {
                wire.push(Kind::Output, &much);
            }
        }
        let hear = async |wire: &mut Wire| {
            for _ in 0..8 {
                assert_eq!(wire.frame().await.unwrap().unwrap().1.len(), much.len());
            }
            wire.flush().await
        };
        let both = async { tokio::join!(hear(&mut one), hear(&mut other)) };
        let (first, second) =
            tokio::time::timeout(std::time::Duration::from_secs(30), both).await.expect("no deadlock");
        first.and(second).unwrap();
    }
}
