//! What the controller still has to be told about one run: its report and its output, until both
//! are acknowledged.
//!
//! Pure: what to send next and when to look again, given the time. Resending is ours alone, since a
//! connection may drop what it had queued. The order is: the report that it runs, the output, the
//! retained repetition of its end, the report of how it ended.

use std::time::Duration;

use bytes::Bytes;
use pistat_protocol::{
    codec::encode,
    id::{PiId, RunId},
    status::Nonce,
    task::{Ack, OutputChunk, Report, Stream},
    topic::Topic,
};
use tokio::time::Instant;

use super::output::Output;
use crate::Outgoing;

/// How long text may wait for more before it is sent: nobody who reads along notices, and a chatty
/// program's lines share a message.
const FLUSH: Duration = Duration::from_millis(50);

/// Without an acknowledgement for so long, the controller counts as away and the process is no
/// longer held back.
const SILENCE: Duration = Duration::from_secs(10);

/// How often a controller that is away is asked again with the oldest chunk.
const PROBE: Duration = Duration::from_secs(10);

/// How often an unacknowledged report is repeated while the connection lasts.
const REPEAT: Duration = Duration::from_secs(30);

/// Acknowledgements without progress for so long mean that a chunk was lost on the way.
const STALLED: Duration = Duration::from_secs(2);

/// After the final report is acknowledged, output that is never acknowledged is given up.
const OUTPUT_GIVEN_UP: Duration = Duration::from_secs(300);

/// What the registry tells a run: always the newest state of things, never a queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Control {
    /// Counts connections; absent while disconnected.
    pub connection: Option<u64>,
    /// Counts requests to repeat everything.
    pub repeats: u64,
    /// The newest acknowledgement.
    pub ack: Option<Ack>,
    /// Counts acknowledgements.
    pub acks: u64,
    /// The order, signed again with the root runner's nonce: byte for byte.
    pub order: Option<(Nonce, Bytes)>,
    /// A person wants it to end: the signed cancellation, byte for byte.
    pub cancel: Option<Bytes>,
    /// The agent is being stopped.
    pub stop: bool,
}

/// What is still to be delivered.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "four independent things that are due or not")]
pub(crate) struct Delivery {
    pi: PiId,
    run: RunId,
    /// The run's output.
    pub output: Output,
    report: Report,
    report_due: bool,
    report_acknowledged: bool,
    report_sent_at: Option<Instant>,
    /// Whether the retained repetition is to be published: only of runs whose process was started.
    repetition_due: bool,
    repeats_output: bool,
    seen: Control,
    silent: bool,
    progress_at: Instant,
    rewound_at: Instant,
    asked_at: Instant,
    pending_since: Option<Instant>,
}

impl Delivery {
    /// A run with its first report.
    pub(crate) fn new(pi: PiId, run: RunId, report: Report, now: Instant) -> Self {
        Self {
            pi,
            run,
            output: Output::default(),
            report,
            report_due: true,
            report_acknowledged: false,
            report_sent_at: None,
            repetition_due: false,
            repeats_output: false,
            seen: Control::default(),
            silent: false,
            progress_at: now,
            rewound_at: now,
            asked_at: now,
            pending_since: None,
        }
    }

    /// A new state of the run, which is to be reported.
    pub(crate) fn set_report(&mut self, report: Report) {
        self.report = report;
        self.report_due = true;
        self.report_acknowledged = false;
    }

    /// The process has ended and all its output is in: the end is to be repeated for late
    /// subscribers.
    pub(crate) fn finish_output(&mut self) {
        self.output.finish();
        self.repeats_output = true;
        self.repetition_due = true;
    }

    /// Takes what the registry says.
    pub(crate) fn take(&mut self, control: &Control, now: Instant) {
        let before = std::mem::replace(&mut self.seen, control.clone());
        if control.connection != before.connection || control.repeats != before.repeats {
            self.start_over(now);
        }
        if control.acks != before.acks
            && let Some(ack) = control.ack
        {
            self.acknowledge(ack, now);
        }
    }

    fn start_over(&mut self, now: Instant) {
        self.output.rewind();
        self.report_due = !self.report_acknowledged;
        self.repetition_due = self.repeats_output;
        self.silent = false;
        self.progress_at = now;
    }

    fn acknowledge(&mut self, ack: Ack, now: Instant) {
        if let Some(state) = ack.state {
            // A controller that has decided otherwise has decided.
            let decided = state == self.report.state || (state.is_final() && self.report.state.is_final());
            self.report_acknowledged |= decided;
            self.report_due &= !decided;
        }
        let news = ack.seq.is_some_and(|seq| self.output.acknowledge(seq));
        let stalled = !news && now.duration_since(self.progress_at.max(self.rewound_at)) >= STALLED;
        if self.silent || (stalled && self.output.awaits_acknowledgement()) {
            self.silent = false;
            self.output.rewind();
            self.rewound_at = now;
        }
        if news {
            self.progress_at = now;
        }
    }

    fn is_connected(&self) -> bool {
        self.seen.connection.is_some()
    }

    /// Whether nobody takes the output at the moment.
    fn is_away(&self) -> bool {
        !self.is_connected() || self.silent
    }

    /// Whether the process may be read.
    pub(crate) fn may_read(&self) -> bool {
        self.is_away() || self.output.has_room()
    }

    /// Takes what the process wrote.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8], now: Instant) {
        self.output.push(stream, bytes);
        self.pending_since = self.output.has_pending().then(|| self.pending_since.unwrap_or(now));
        if self.is_away() {
            self.output.trim();
        }
    }

    /// Whether everything that can be sent now has been.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_connected() || !(self.wants_report() || self.wants_output() || self.repetition_due)
    }

    fn wants_output(&self) -> bool {
        !self.silent && self.output.has_unsent()
    }

    fn wants_report(&self) -> bool {
        self.report_due && (!self.report.state.is_final() || !self.wants_output())
    }

    /// The next thing to publish.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Outgoing> {
        if !self.is_connected() {
            return None;
        }
        if self.report_due && !self.report.state.is_final() {
            return Some(self.report(now));
        }
        if self.wants_output() {
            if !self.output.awaits_acknowledgement() {
                self.progress_at = now;
            }
            let chunk = self.output.next_unsent()?;
            return Some(self.chunk(&chunk));
        }
        if std::mem::take(&mut self.repetition_due) {
            return Some(self.chunk(&self.output.repetition()));
        }
        self.report_due.then(|| self.report(now))
    }

    fn report(&mut self, now: Instant) -> Outgoing {
        self.report_due = false;
        self.report_sent_at = Some(now);
        let topic = Topic::Report(self.pi.clone(), self.run);
        Outgoing { topic, payload: encode(&self.report), qos: 1, retain: false }
    }

    fn chunk(&self, chunk: &OutputChunk) -> Outgoing {
        let topic = Topic::Output(self.pi.clone(), self.run);
        Outgoing { topic, payload: encode(chunk), qos: 1, retain: chunk.is_final }
    }

    /// When to call [`Delivery::wake`].
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        if !self.is_connected() {
            return None;
        }
        let flush = self.pending_since.filter(|_| !self.silent).map(|since| since + FLUSH);
        let silence = (!self.silent && self.output.awaits_acknowledgement()).then(|| self.progress_at + SILENCE);
        let probe = self.silent.then(|| self.asked_at + PROBE);
        let repeat = self.report_sent_at.filter(|_| self.repeats_report()).map(|sent| sent + REPEAT);
        let given_up = self.waits_for_output_only().then(|| self.progress_at + OUTPUT_GIVEN_UP);
        [flush, silence, probe, repeat, given_up].into_iter().flatten().min()
    }

    fn waits_for_output_only(&self) -> bool {
        self.report.state.is_final() && self.report_acknowledged && !self.output.is_delivered()
    }

    fn repeats_report(&self) -> bool {
        !self.report_acknowledged && !self.report_due
    }

    /// Time has passed. Returns a chunk to ask a silent controller with.
    pub(crate) fn wake(&mut self, now: Instant) -> Option<Outgoing> {
        if self.pending_since.is_some_and(|since| since + FLUSH <= now) && !self.is_away() {
            self.output.seal();
            self.pending_since = None;
        }
        if self.is_connected() && self.repeats_report() && self.report_sent_at.is_some_and(|at| at + REPEAT <= now) {
            self.report_due = true;
        }
        if !self.silent && self.output.awaits_acknowledgement() && self.progress_at + SILENCE <= now {
            self.silent = true;
            self.output.rewind();
            self.asked_at = now;
            return None;
        }
        if !(self.silent && self.asked_at + PROBE <= now) {
            return None;
        }
        self.asked_at = now;
        let chunk = self.output.oldest_sent()?;
        Some(self.chunk(&chunk))
    }

    /// Whether the controller has everything, so that the run can be forgotten.
    pub(crate) fn is_done(&self, now: Instant) -> bool {
        let given_up = self.is_connected() && now.duration_since(self.progress_at) >= OUTPUT_GIVEN_UP;
        let output = self.output.is_delivered() || given_up;
        self.report.state.is_final() && self.report_acknowledged && !self.repetition_due && output
    }
}

#[cfg(test)]
mod tests {
    use pistat_protocol::task::{MAX_CHUNK_BYTES, RunState};

    use super::*;

    fn report(state: RunState) -> Report {
        crate::task::run::empty_report(state, "b")
    }

    struct Bench {
        delivery: Delivery,
        control: Control,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::now();
            let run = RunId::from_parts(1, [1; 10]);
            let delivery = Delivery::new("pi-1".parse().unwrap(), run, report(RunState::Running), now);
            Self { delivery, control: Control::default(), now }
        }

        fn connect(&mut self, connection: u64) {
            self.control.connection = Some(connection);
            self.delivery.take(&self.control, self.now);
        }

        fn disconnect(&mut self) {
            self.control.connection = None;
            self.delivery.take(&self.control, self.now);
        }

        fn ack(&mut self, seq: Option<u64>, state: Option<RunState>) {
            self.control.ack = Some(Ack { seq, state });
            self.control.acks += 1;
            self.delivery.take(&self.control, self.now);
        }

        fn pass(&mut self, time: Duration) -> Option<Outgoing> {
            self.now += time;
            self.delivery.wake(self.now)
        }

        fn write(&mut self, text: &str) {
            self.delivery.push(Stream::Stdout, text.as_bytes(), self.now);
        }

        /// What is sent now: `report:<state>`, `<seq>:<text>` or `final:<text>`.
        fn sent(&mut self) -> Vec<String> {
            std::iter::from_fn(|| self.delivery.next(self.now)).map(|out| describe(&out)).collect()
        }
    }

    fn describe(out: &Outgoing) -> String {
        if let Ok(report) = serde_json::from_slice::<Report>(&out.payload) {
            return format!("report:{}", report.state);
        }
        let chunk: OutputChunk = serde_json::from_slice(&out.payload).unwrap();
        assert_eq!(chunk.is_final, out.retain);
        let name = if chunk.is_final { "final".into() } else { chunk.seq.to_string() };
        format!("{name}:{}", chunk.data.chars().take(10).collect::<String>())
    }

    #[test]
    fn the_report_that_it_runs_comes_first_and_the_end_last() {
        let mut bench = Bench::new();
        bench.write("hello");
        assert!(bench.sent().is_empty(), "nothing before there is a connection");
        bench.connect(1);
        bench.pass(FLUSH);
        assert_eq!(bench.sent(), ["report:running", "0:hello"]);
        bench.delivery.finish_output();
        bench.delivery.set_report(report(RunState::Succeeded));
        assert_eq!(bench.sent(), ["final:hello", "report:succeeded"]);
        bench.ack(Some(0), Some(RunState::Running));
        assert!(!bench.delivery.is_done(bench.now));
        bench.ack(Some(0), Some(RunState::Succeeded));
        assert!(bench.delivery.is_done(bench.now));
    }

    #[test]
    fn everything_unacknowledged_is_repeated_at_the_next_connection() {
        let mut bench = Bench::new();
        bench.connect(1);
        for text in ["a", "b", "c"] {
            bench.write(text);
            bench.pass(FLUSH);
        }
        bench.delivery.output.seal();
        assert_eq!(bench.sent(), ["report:running", "0:a", "1:b", "2:c"]);
        bench.ack(Some(0), Some(RunState::Running));
        bench.disconnect();
        assert!(bench.sent().is_empty());
        bench.connect(2);
        assert_eq!(bench.sent(), ["1:b", "2:c"]);
    }

    #[test]
    fn an_unacknowledged_report_is_repeated_while_the_connection_lasts() {
        let mut bench = Bench::new();
        bench.connect(1);
        assert_eq!(bench.sent(), ["report:running"]);
        assert_eq!(bench.delivery.wakes_at(), Some(bench.now + REPEAT));
        bench.pass(REPEAT);
        assert_eq!(bench.sent(), ["report:running"]);
        bench.ack(None, Some(RunState::Running));
        bench.pass(REPEAT);
        assert!(bench.sent().is_empty());
        assert_eq!(bench.delivery.wakes_at(), None, "nothing to wait for");
    }

    #[test]
    fn a_silent_controller_holds_nobody_back_and_is_asked_again() {
        let mut bench = Bench::new();
        bench.connect(1);
        while bench.delivery.may_read() {
            bench.write(&"x".repeat(MAX_CHUNK_BYTES));
        }
        bench.delivery.output.seal();
        let sent = bench.sent().len();
        assert!(!bench.delivery.may_read(), "the window is full");
        assert!(bench.pass(SILENCE).is_none());
        assert!(bench.delivery.may_read(), "the process goes on");
        assert!(bench.sent().is_empty());
        let probe = bench.pass(PROBE).map(|out| describe(&out));
        assert_eq!(probe.as_deref(), Some("0:xxxxxxxxxx"));
        bench.ack(Some(0), Some(RunState::Running));
        assert_eq!(bench.sent().len(), sent - 2, "all but the acknowledged chunk and the report");
    }

    #[test]
    fn a_chunk_that_was_lost_on_the_way_is_sent_again() {
        let mut bench = Bench::new();
        bench.connect(1);
        for text in ["a", "b"] {
            bench.write(text);
            bench.pass(FLUSH);
        }
        assert_eq!(bench.sent(), ["report:running", "0:a", "1:b"]);
        bench.ack(Some(0), None);
        bench.pass(STALLED);
        bench.ack(Some(0), None);
        assert_eq!(bench.sent(), ["1:b"]);
        bench.ack(Some(0), None);
        assert!(bench.sent().is_empty(), "not again at once");
    }

    #[test]
    fn a_controller_that_decided_otherwise_has_decided() {
        let mut bench = Bench::new();
        bench.connect(1);
        bench.delivery.set_report(report(RunState::Succeeded));
        assert_eq!(bench.sent(), ["report:succeeded"]);
        bench.ack(None, Some(RunState::Lost));
        assert!(bench.delivery.is_done(bench.now));
    }
}
