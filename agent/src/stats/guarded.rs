//! A measurement that may hang: it runs in a thread of its own and is waited for only so long.
//!
//! While an earlier question is unanswered no other is asked and the value is unknown; when the answer comes at last, it is thrown away as too
//! old. A thread that hangs for ever costs its stack and nothing else; it holds up neither samples nor the end of the process.

use std::{sync::mpsc, time::Duration};

use tokio::sync::oneshot;

/// Small: the work is one system call or a few small files.
const STACK_BYTES: usize = 128 * 1024;

/// A measurement in a thread of its own. The thread is started at the first question and ends when this is dropped.
pub(crate) struct Guarded<T> {
    name: &'static str,
    work: Option<Box<dyn FnMut() -> T + Send>>,
    questions: Option<mpsc::SyncSender<oneshot::Sender<T>>>,
    unanswered: Option<oneshot::Receiver<T>>,
}

impl<T: Send + 'static> Guarded<T> {
    /// A measurement.
    pub(crate) fn new(name: &'static str, work: impl FnMut() -> T + Send + 'static) -> Self {
        Self { name, work: Some(Box::new(work)), questions: None, unanswered: None }
    }

    /// Measures now; `None` when it takes longer than the deadline, or still hangs from before.
    pub(crate) async fn ask(&mut self, deadline: Duration) -> Option<T> {
        if let Some(earlier) = &mut self.unanswered {
            if matches!(earlier.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                return None;
            }
            tracing::info!(probe = self.name, "answers again");
            self.unanswered = None;
        }
        let (tell, mut told) = oneshot::channel();
        self.questions()?.try_send(tell).ok()?;
        if let Ok(answer) = tokio::time::timeout(deadline, &mut told).await {
            return answer.ok();
        }
        tracing::warn!(probe = self.name, ?deadline, "does not answer; its value is unknown until it does");
        self.unanswered = Some(told);
        None
    }

    fn questions(&mut self) -> Option<&mpsc::SyncSender<oneshot::Sender<T>>> {
        if let Some(mut work) = self.work.take() {
            // One question at a time.
            let (questions, asked) = mpsc::sync_channel::<oneshot::Sender<T>>(1);
            let thread = std::thread::Builder::new().name(self.name.to_owned()).stack_size(STACK_BYTES);
            let started = thread.spawn(move || {
                for tell in asked {
                    // Nobody listening any more is no reason to stop measuring.
                    let _ = tell.send(work());
                }
            });
            self.questions = started.is_ok().then_some(questions);
        }
        self.questions.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hung_probe_is_unknown_and_comes_back_when_it_answers() {
        let (release, held) = mpsc::channel::<()>();
        let mut count = 0;
        let mut probe = Guarded::new("test", move || {
            count += 1;
            if count == 1 {
                held.recv().unwrap();
            }
            count
        });
        assert_eq!(probe.ask(Duration::from_millis(10)).await, None);
        assert_eq!(probe.ask(Duration::from_millis(10)).await, None, "asked once only");
        release.send(()).unwrap();
        let answer = loop {
            if let Some(answer) = probe.ask(Duration::from_secs(5)).await {
                break answer;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(answer, 2, "the late answer is thrown away");
    }
}
