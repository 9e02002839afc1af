//! A measurement that may hang: it runs in a thread of its own and is waited for only so long.
//!
//! While an earlier question is unanswered no other is asked and the value is unknown; when the answer comes at last, it is thrown away as too
//! old. A thread that hangs for ever costs its stack and nothing else; it holds up neither samples nor the end of the process. One that is
//! asked seldom ends in between, so that an idle agent has one thread.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

/// Small: the work is one system call or a few small files.
const STACK_BYTES: usize = 128 * 1024;

/// A thread that is not asked for so long ends: longer than the usual cadence of samples, so that it is not started for each.
const IDLE: Duration = Duration::from_secs(12);

/// What is measured.
type Work<T> = Arc<Mutex<dyn FnMut() -> T + Send>>;

/// A measurement in a thread of its own.
pub(crate) struct Guarded<T> {
    name: &'static str,
    work: Work<T>,
    questions: Option<mpsc::SyncSender<oneshot::Sender<T>>>,
    asked: Option<oneshot::Receiver<T>>,
    hangs: bool,
}

impl<T: Send + 'static> Guarded<T> {
    /// A measurement.
    pub(crate) fn new(name: &'static str, work: impl FnMut() -> T + Send + 'static) -> Self {
        Self { name, work: Arc::new(Mutex::new(work)), questions: None, asked: None, hangs: false }
    }

    /// Measures now; `None` when it takes longer than the deadline, or still hangs from before.
    pub(crate) async fn ask(&mut self, deadline: Duration) -> Option<T> {
        self.begin();
        self.answer(Instant::now() + deadline).await
    }

    /// Begins to measure, unless it still hangs from before.
    pub(crate) fn begin(&mut self) {
        if let Some(earlier) = &mut self.asked {
            if matches!(earlier.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                return;
            }
            if std::mem::take(&mut self.hangs) {
                tracing::info!(probe = self.name, "answers again");
            }
        }
        self.put();
    }

    /// The answer to what was begun; `None` when it does not come in time.
    pub(crate) async fn answer(&mut self, deadline: Instant) -> Option<T> {
        for _ in 0..2 {
            let told = self.asked.as_mut().filter(|_| !self.hangs)?;
            match tokio::time::timeout_at(deadline, told).await {
                Ok(Ok(answer)) => {
                    self.asked = None;
                    return Some(answer);
                }
                // The thread was about to end when it was asked, or failed: another takes its place.
                Ok(Err(_)) => {
                    self.questions = None;
                    self.put();
                }
                Err(_) => {
                    tracing::warn!(probe = self.name, "does not answer; its value is unknown until it does");
                    self.hangs = true;
                    return None;
                }
            }
        }
        None
    }

    /// Puts a question to the thread, which is started when there is none.
    fn put(&mut self) {
        let (tell, told) = oneshot::channel();
        let unsent = match &self.questions {
            Some(questions) => questions.try_send(tell).err().map(|error| match error {
                mpsc::TrySendError::Full(tell) | mpsc::TrySendError::Disconnected(tell) => tell,
            }),
            None => Some(tell),
        };
        let is_put = unsent.is_none_or(|tell| self.start_thread(tell));
        self.asked = is_put.then_some(told);
    }

    fn start_thread(&mut self, first: oneshot::Sender<T>) -> bool {
        // One question at a time.
        let (questions, asked) = mpsc::sync_channel(1);
        self.questions = Some(questions);
        let work = self.work.clone();
        let measure = move || {
            let mut work = work.lock().unwrap_or_else(PoisonError::into_inner);
            let mut next = Some(first);
            while let Some(tell) = next {
                // Nobody listening any more is no reason to stop measuring.
                let _ = tell.send(work());
                next = asked.recv_timeout(IDLE).ok();
            }
        };
        let thread = std::thread::Builder::new().name(self.name.to_owned()).stack_size(STACK_BYTES);
        thread.spawn(measure).is_ok()
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

    #[tokio::test]
    async fn a_probe_that_fails_badly_is_asked_again() {
        let mut count = 0;
        let mut probe = Guarded::new("test", move || {
            count += 1;
            assert!(count > 1, "the first time it fails");
            count
        });
        assert_eq!(probe.ask(Duration::from_secs(5)).await, Some(2));
    }

    #[tokio::test]
    async fn a_probe_that_is_asked_again_at_once_answers_each_time() {
        let mut count = 0;
        let mut probe = Guarded::new("test", move || {
            count += 1;
            count
        });
        for n in 1..1000 {
            assert_eq!(probe.ask(Duration::from_secs(30)).await, Some(n));
        }
    }
}
