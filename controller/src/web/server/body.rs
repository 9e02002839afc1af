//! The body of a request, which has to arrive in time.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

pub(super) struct TimelyBody {
    incoming: Incoming,
    timeout: Duration,
    /// Runs from when the rest was waited for the first time: most bodies come with their heads,
    /// and need none.
    late: Option<Pin<Box<Sleep>>>,
}

impl TimelyBody {
    pub(super) fn new(incoming: Incoming, timeout: Duration) -> Self {
        Self { incoming, timeout, late: None }
    }
}

impl Body for TimelyBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let timeout = self.timeout;
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(timeout)));
        late.as_mut().poll(context).map(|()| Some(Err("it did not come in time".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
