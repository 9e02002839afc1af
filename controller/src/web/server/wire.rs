//! The bytes of a connection. They hold its permit for as long as they flow, and end when the other
//! side takes none of them, or sends more than is read of it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep, timeout},
};

use crate::web::admission::{Allowance, Permit};

/// How long what still comes is read and dropped, on a connection that has sent too much: one that
/// is closed with unread input is reset, and the other side never learns why.
const LINGER: Duration = Duration::from_secs(1);

pub(super) struct Wire {
    /// Taken when it is dropped.
    socket: Option<(TcpStream, Permit)>,
    /// How long the other side may take nothing.
    write_timeout: Duration,
    /// Runs while it takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    is_http: Arc<AtomicBool>,
    /// How much may still be read.
    allowance: Allowance,
}

impl Wire {
    /// `is_http` is whether it is still HTTP that is spoken: a WebSocket has rules of its own for a
    /// slow reader.
    pub(super) fn new(stream: TcpStream, write_timeout: Duration, is_http: Arc<AtomicBool>, permit: Permit) -> Self {
        let allowance = permit.connection().allowance();
        Self { socket: Some((stream, permit)), write_timeout, stalled: None, is_http, allowance }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        let (stream, _) = self.socket.as_mut().expect("the socket is taken only when this is dropped");
        Pin::new(stream)
    }

    /// What came of writing, or an error once nothing could be written for too long.
    fn bounded(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let written = write(self.stream(), context);
        if written.is_ready() || !self.is_http.load(Ordering::Relaxed) {
            self.stalled = None;
            return written;
        }
        let write_timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(write_timeout)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some((stream, permit)) = self.socket.take()
            && self.allowance.is_used_up()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(linger(stream, permit));
        }
    }
}

async fn linger(mut stream: TcpStream, _permit: Permit) {
    let drained = async {
        stream.shutdown().await?;
        let mut scratch = [0; 4096];
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(LINGER, drained).await;
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.allowance.is_used_up() {
            return Poll::Ready(Err(io::Error::other("more was sent than is read")));
        }
        let before = buffer.filled().len();
        let read = self.stream().poll_read(context, buffer);
        self.allowance.take(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.bounded(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.bounded(context, |stream, context| stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.as_ref().is_some_and(|(stream, _)| stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}
