//! A byte stream with the buffers that it needs at the moment, which is none when nothing is under
//! way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::statistics::Counters;

/// How much is read at once: through the stack, so that an idle connection holds nothing.
pub(super) const READ_BYTES: usize = 16 * 1024;

/// Output buffers up to this size are kept while the connection is busy.
const KEPT_BYTES: usize = 16 * 1024;

/// The stream and its buffers.
pub(super) struct Transport<S> {
    stream: S,
    /// Bytes that came and make no complete packet yet.
    pub(super) input: Vec<u8>,
    /// Packets that are to be sent.
    pub(super) output: Vec<u8>,
    written: usize,
    /// The peer has taken something since this was looked at.
    pub(super) has_written: bool,
    counters: Arc<Counters>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    pub(super) fn new(stream: S, counters: Arc<Counters>) -> Self {
        Self { stream, input: Vec::new(), output: Vec::new(), written: 0, has_written: false, counters }
    }

    /// Reads what is there, at most one read's worth.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = [std::mem::MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        let filled = buffer.filled();
        self.input.extend_from_slice(filled);
        self.counters.bytes_in.add(filled.len() as u64);
        Poll::Ready(Ok(filled.len()))
    }

    /// Takes the input buffer back after its first `done` bytes have been used.
    pub(super) fn give_back(&mut self, mut input: Vec<u8>, done: usize) {
        if done < input.len() {
            input.drain(..done);
            self.input = input;
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn pending_output(&self) -> usize {
        self.output.len() - self.written
    }

    /// Writes as much as the stream takes.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.written < self.output.len() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, &self.output[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.has_written = true;
            self.counters.bytes_out.add(count as u64);
        }
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.written = 0;
        if self.output.capacity() > KEPT_BYTES {
            self.output = Vec::new();
        } else {
            self.output.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the output buffer back, when there is nothing in it.
    pub(super) fn release(&mut self) {
        if self.output.is_empty() && self.output.capacity() > 0 {
            self.output = Vec::new();
        }
    }

    /// Writes everything, closes the stream and waits until the peer has closed it too. What the
    /// peer still sends is read and dropped: a socket that is closed with unread input is reset,
    /// and takes back what the peer has not read yet.
    pub(super) async fn part(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.close().await?;
        self.drain().await;
        Ok(())
    }

    /// Writes everything.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_flush(context)).await
    }

    /// Closes the stream properly.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Reads and drops what the peer still sends, until it has closed the stream.
    pub(super) async fn drain(&mut self) {
        while let Ok(count) = std::future::poll_fn(|context| self.poll_fill(context)).await {
            self.input.clear();
            if count == 0 {
                return;
            }
        }
    }
}
