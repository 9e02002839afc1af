//! A measurement that may hang: it runs in another thread and is waited for only so long.
//!
//! While an earlier question is unanswered no other is asked and the value is unknown; when the
//! answer comes at last, it is thrown away as too old. A thread that hangs for ever costs its stack
//! and nothing else; it holds up neither samples nor the end of the process, and whoever else
//! measured in it gets another. All sensors share one, which ends when nobody asks for a while: at
//! the usual cadence it stays, and an idle agent on a board has two threads.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

/// Small: the work is one system call or a few small files.
const STACK_BYTES: usize = 128 * 1024;

/// A thread that is not asked for so long ends: longer than the usual cadence of samples, so that
/// it is not started for each.
const IDLE: Duration = Duration::from_secs(12);

/// What is measured.
type Work<T> = Arc<Mutex<dyn FnMut() -> T + Send>>;

/// One question, which finds its own way back.
type Job = Box<dyn FnOnce() + Send>;

/// Where measurements run, one after another: a thread that is started when it is needed. When its
/// owner goes, it ends after what it was given.
#[derive(Debug, Default)]
pub(crate) struct ProbeThread {
    jobs: Option<mpsc::SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl ProbeThread {
    /// Gives it a job; `false` when the system has no thread to spare.
    fn run(&mut self, job: Job) -> bool {
        let unsent = match &self.jobs {
            Some(jobs) => jobs.try_send(job).err().map(|error| match error {
                mpsc::TrySendError::Full(job) | mpsc::TrySendError::Disconnected(job) => job,
            }),
            None => Some(job),
        };
        unsent.is_none_or(|job| self.start(job))
    }

    fn start(&mut self, first: Job) -> bool {
        // Whoever asks waits for the answer before it asks again.
        let (jobs, given) = mpsc::sync_channel::<Job>(1);
        self.jobs = Some(jobs);
        // Each that nobody collects moves what is allocated by 64 bytes, with musl and `dlmalloc`
        // until 64 kB are touched. One that hangs is given up.
        if let Some(ended) = self.thread.take_if(|thread| thread.is_finished()) {
            let _ = ended.join();
        }
        let measure = move || {
            first();
            while let Ok(next) = given.recv_timeout(IDLE) {
                next();
            }
        };
        let thread = thread::Builder::new().name("sensors".to_owned()).stack_size(STACK_BYTES);
        self.thread = thread.spawn(measure).ok();
        self.thread.is_some()
    }

    /// Leaves the thread to itself: it ends after what it was given, and the next job gets another.
    pub(crate) fn detach(&mut self) {
        self.jobs = None;
    }
}

/// A measurement that may hang.
pub(crate) struct TimedProbe<T> {
    name: &'static str,
    work: Work<T>,
    asked: Option<oneshot::Receiver<T>>,
    hangs: bool,
}

impl<T: Send + 'static> TimedProbe<T> {
    /// A measurement.
    pub(crate) fn new(name: &'static str, work: impl FnMut() -> T + Send + 'static) -> Self {
        Self { name, work: Arc::new(Mutex::new(work)), asked: None, hangs: false }
    }

    /// Whether it was still silent when it was last waited for.
    pub(crate) fn hangs(&self) -> bool {
        self.hangs
    }

    /// Measures now; `None` when it takes longer than the deadline, or still hangs from before.
    pub(crate) async fn ask(&mut self, thread: &mut ProbeThread, deadline: Duration) -> Option<T> {
        self.begin(thread);
        self.answer(thread, Instant::now() + deadline).await
    }

    /// Begins to measure, unless it still hangs from before.
    pub(crate) fn begin(&mut self, thread: &mut ProbeThread) {
        if let Some(earlier) = &mut self.asked {
            if matches!(earlier.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                return;
            }
            if std::mem::take(&mut self.hangs) {
                tracing::info!(probe = self.name, "answers again");
            }
        }
        self.put(thread);
    }

    /// The answer to what was begun; `None` when it does not come in time.
    pub(crate) async fn answer(&mut self, thread: &mut ProbeThread, deadline: Instant) -> Option<T> {
        for _ in 0..2 {
            let told = self.asked.as_mut().filter(|_| !self.hangs)?;
            match tokio::time::timeout_at(deadline, told).await {
                Ok(Ok(answer)) => {
                    self.asked = None;
                    return Some(answer);
                }
                // The thread was about to end when it was asked, or failed: another takes its
                // place.
                Ok(Err(_)) => {
                    thread.detach();
                    self.put(thread);
                }
                Err(_) => {
                    tracing::warn!(probe = self.name, "does not answer; its value is unknown until it does");
                    thread.detach();
                    self.hangs = true;
                    return None;
                }
            }
        }
        None
    }

    /// Puts a question to the thread.
    fn put(&mut self, thread: &mut ProbeThread) {
        let (tell, told) = oneshot::channel();
        let work = self.work.clone();
        let is_put = thread.run(Box::new(move || {
            let answer = work.lock().unwrap_or_else(PoisonError::into_inner)();
            // Nobody listening any more is not a reason to stop measuring.
            let _ = tell.send(answer);
        }));
        self.asked = is_put.then_some(told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hung_probe_is_unknown_and_comes_back_when_it_answers() {
        let (release, held) = mpsc::channel::<()>();
        let (mut thread, mut count) = (ProbeThread::default(), 0);
        let mut probe = TimedProbe::new("test", move || {
            count += 1;
            if count == 1 {
                held.recv().unwrap();
            }
            count
        });
        assert_eq!(probe.ask(&mut thread, Duration::from_millis(10)).await, None);
        assert_eq!(probe.ask(&mut thread, Duration::from_millis(10)).await, None, "asked once only");
        release.send(()).unwrap();
        let answer = loop {
            if let Some(answer) = probe.ask(&mut thread, Duration::from_secs(5)).await {
                break answer;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(answer, 2, "the late answer is thrown away");
    }

    #[tokio::test]
    async fn a_probe_that_fails_badly_is_asked_again() {
        let (mut thread, mut count) = (ProbeThread::default(), 0);
        let mut probe = TimedProbe::new("test", move || {
            count += 1;
            assert!(count > 1, "the first time it fails");
            count
        });
        assert_eq!(probe.ask(&mut thread, Duration::from_secs(5)).await, Some(2));
    }

    #[tokio::test]
    async fn a_probe_that_is_asked_again_at_once_answers_each_time() {
        let (mut thread, mut count) = (ProbeThread::default(), 0);
        let mut probe = TimedProbe::new("test", move || {
            count += 1;
            count
        });
        for n in 1..1000 {
            assert_eq!(probe.ask(&mut thread, Duration::from_secs(30)).await, Some(n));
        }
    }

    #[tokio::test]
    async fn probes_share_a_thread_and_one_that_hangs_takes_it_from_nobody() {
        let mut thread = ProbeThread::default();
        let (release, held) = mpsc::channel::<()>();
        let mut hangs = TimedProbe::new("hangs", move || held.recv().is_ok());
        let mut others = [1, 2].map(|n| TimedProbe::new("answers", move || (n, std::thread::current().id())));
        let mut ask = async |thread: &mut ProbeThread| {
            let mut answers = Vec::new();
            for probe in &mut others {
                answers.push(probe.ask(thread, Duration::from_secs(30)).await.unwrap());
            }
            assert_eq!([answers[0].0, answers[1].0], [1, 2]);
            assert_eq!(answers[0].1, answers[1].1, "the same thread");
            answers[0].1
        };
        let first = ask(&mut thread).await;
        assert_eq!(hangs.ask(&mut thread, Duration::from_millis(10)).await, None);
        let second = ask(&mut thread).await;
        assert_ne!(first, second);
        assert_eq!(hangs.ask(&mut thread, Duration::from_millis(10)).await, None);
        assert_eq!(ask(&mut thread).await, second, "nobody waits for it again");
        drop(release);
    }
}
