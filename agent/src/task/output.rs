//! The output of one run between its process and the controller: decoding, chunks, the window, and
//! what is kept while nobody listens.
//!
//! Pure: no process, no connection, no clock. While the controller acknowledges, at most
//! [`OUTPUT_WINDOW_BYTES`] are held and the process is read no faster. While it is away the process
//! never waits: the first and the last half of the buffer are kept, what lies between is counted
//! and marked as a gap. A chunk that has been sent has its number for good and is never dropped
//! before it is acknowledged.

use std::collections::VecDeque;

use pistat_protocol::task::{MAX_CHUNK_BYTES, OUTPUT_WINDOW_BYTES, OutputChunk, Stream};

use super::utf8::Decoder;

/// What a chunk costs besides its text, so that many tiny chunks are bounded too.
const CHUNK_OVERHEAD_BYTES: usize = 64;

#[derive(Debug)]
struct Chunk {
    /// Its number, once it has been sent.
    seq: Option<u64>,
    stream: Stream,
    data: Box<str>,
    gap_bytes: u64,
}

impl Chunk {
    fn cost(&self) -> usize {
        self.data.len() + CHUNK_OVERHEAD_BYTES
    }

    fn to_wire(&self, seq: u64) -> OutputChunk {
        let gap_bytes = Some(self.gap_bytes).filter(|bytes| *bytes > 0);
        let data = self.data.to_string();
        OutputChunk { seq, stream: Some(self.stream), data, gap_bytes, is_final: false, dropped_bytes: None }
    }
}

/// The output of one run.
#[derive(Debug, Default)]
pub(crate) struct Output {
    stdout: Decoder,
    stderr: Decoder,
    pending: Option<(Stream, String)>,
    /// Sealed and not yet acknowledged, oldest first.
    chunks: VecDeque<Chunk>,
    held: usize,
    /// How many of `chunks` have a number.
    numbered: usize,
    /// How many of `chunks` were sent over the present connection.
    sent: usize,
    next_seq: u64,
    /// Dropped since the last sealed chunk.
    gap_bytes: u64,
    dropped_bytes: u64,
    /// All that was ever taken.
    text_bytes: u64,
    tail: String,
}

impl Output {
    /// Takes what a process wrote.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let mut decoder = std::mem::take(self.decoder(stream));
        decoder.decode(bytes, |text| self.append(stream, text));
        *self.decoder(stream) = decoder;
    }

    /// The process has closed this stream: what was cut off in the middle of a character is shown
    /// as such.
    pub(crate) fn close(&mut self, stream: Stream) {
        let mut decoder = std::mem::take(self.decoder(stream));
        decoder.finish(|text| self.append(stream, text));
    }

    fn decoder(&mut self, stream: Stream) -> &mut Decoder {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn append(&mut self, stream: Stream, mut text: &str) {
        self.remember_tail(text);
        self.text_bytes += text.len() as u64;
        while !text.is_empty() {
            if self.pending.as_ref().is_some_and(|(of, data)| *of != stream || data.len() + 4 > MAX_CHUNK_BYTES) {
                self.seal();
            }
            let (_, data) = self.pending.get_or_insert_with(|| (stream, String::new()));
            let (fits, rest) = text.split_at(boundary_at_most(text, MAX_CHUNK_BYTES - data.len()));
            data.push_str(fits);
            text = rest;
            if !text.is_empty() {
                self.seal();
            }
        }
    }

    fn remember_tail(&mut self, text: &str) {
        let text = &text[boundary_at_least(text, text.len().saturating_sub(MAX_CHUNK_BYTES))..];
        self.tail.push_str(text);
        // Cut only now and then: each cut copies.
        if self.tail.len() > 2 * MAX_CHUNK_BYTES {
            let cut = boundary_at_least(&self.tail, self.tail.len() - MAX_CHUNK_BYTES);
            self.tail.drain(..cut);
        }
    }

    /// Whether text waits to become a chunk.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Makes a chunk of what waits.
    pub(crate) fn seal(&mut self) {
        let Some((stream, data)) = self.pending.take() else { return };
        self.add_chunk(stream, data.into_boxed_str());
    }

    fn add_chunk(&mut self, stream: Stream, data: Box<str>) {
        let chunk = Chunk { seq: None, stream, data, gap_bytes: std::mem::take(&mut self.gap_bytes) };
        self.held += chunk.cost();
        self.chunks.push_back(chunk);
    }

    /// Whether the window has room: otherwise the process is not read while the controller
    /// acknowledges.
    pub(crate) fn has_room(&self) -> bool {
        self.held < OUTPUT_WINDOW_BYTES
    }

    /// Keeps the first and the last half of the buffer: called after reading while the controller
    /// is away.
    ///
    /// When all of the window had been sent before, that is the first half, and a last half is kept
    /// besides.
    pub(crate) fn trim(&mut self) {
        let numbered: usize = self.chunks.iter().take(self.numbered).map(Chunk::cost).sum();
        let most = OUTPUT_WINDOW_BYTES.max(numbered + OUTPUT_WINDOW_BYTES / 2);
        while self.held > most {
            let Some(index) = self.first_droppable() else { return };
            self.drop_chunk(index);
        }
    }

    fn first_droppable(&self) -> Option<usize> {
        let mut kept = 0;
        let first_half = self.chunks.iter().take_while(|chunk| {
            kept += chunk.cost();
            kept <= OUTPUT_WINDOW_BYTES / 2
        });
        let index = first_half.count().max(self.numbered);
        (index < self.chunks.len()).then_some(index)
    }

    fn drop_chunk(&mut self, index: usize) {
        let Some(chunk) = self.chunks.remove(index) else { return };
        self.held -= chunk.cost();
        self.dropped_bytes += chunk.data.len() as u64;
        let gap = chunk.gap_bytes + chunk.data.len() as u64;
        match self.chunks.get_mut(index) {
            Some(next) => next.gap_bytes += gap,
            None => self.gap_bytes += gap,
        }
    }

    /// Whether a chunk waits to be sent over the present connection.
    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.chunks.len()
    }

    /// The next chunk to be sent, which from now on has its number.
    pub(crate) fn next_unsent(&mut self) -> Option<OutputChunk> {
        let chunk = self.chunks.get_mut(self.sent)?;
        self.sent += 1;
        self.numbered = self.numbered.max(self.sent);
        let seq = *chunk.seq.get_or_insert(self.next_seq);
        self.next_seq = self.next_seq.max(seq + 1);
        Some(chunk.to_wire(seq))
    }

    /// The oldest chunk that was sent and is not acknowledged: the one to ask again with.
    pub(crate) fn oldest_sent(&self) -> Option<OutputChunk> {
        let chunk = self.chunks.front()?;
        chunk.seq.map(|seq| chunk.to_wire(seq))
    }

    /// Whether something was sent and is not acknowledged.
    pub(crate) fn awaits_acknowledgement(&self) -> bool {
        self.sent > 0
    }

    /// Whether every chunk is acknowledged.
    pub(crate) fn is_delivered(&self) -> bool {
        self.chunks.is_empty() && self.pending.is_none()
    }

    /// Everything that is not acknowledged is to be sent again.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// The controller has the output up to and with this chunk. Returns whether that was news.
    pub(crate) fn acknowledge(&mut self, seq: u64) -> bool {
        let before = self.chunks.len();
        while self.chunks.front().and_then(|chunk| chunk.seq).is_some_and(|own| own <= seq) {
            if let Some(chunk) = self.chunks.pop_front() {
                self.held -= chunk.cost();
                self.numbered = self.numbered.saturating_sub(1);
                self.sent = self.sent.saturating_sub(1);
            }
        }
        self.chunks.len() < before
    }

    /// The process has ended: seals what is left, so that the number of chunks is known from now
    /// on.
    pub(crate) fn finish(&mut self) {
        self.close(Stream::Stdout);
        self.close(Stream::Stderr);
        self.seal();
        if self.gap_bytes > 0 {
            // The gap is at the very end: an empty chunk carries it.
            self.add_chunk(Stream::Stdout, Box::default());
        }
        for chunk in self.chunks.iter_mut().skip(self.numbered) {
            chunk.seq = Some(self.next_seq);
            self.next_seq += 1;
        }
        self.numbered = self.chunks.len();
    }

    /// How many chunks there are; final after [`Output::finish`].
    pub(crate) fn chunk_count(&self) -> u64 {
        self.next_seq
    }

    /// Bytes of text that were dropped.
    pub(crate) fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// All bytes of text, dropped ones included; final after [`Output::finish`].
    pub(crate) fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// The retained repetition of the end, for late subscribers.
    pub(crate) fn repetition(&self) -> OutputChunk {
        let from = boundary_at_least(&self.tail, self.tail.len().saturating_sub(MAX_CHUNK_BYTES));
        OutputChunk {
            seq: self.next_seq,
            stream: None,
            data: self.tail[from..].to_owned(),
            gap_bytes: None,
            is_final: true,
            dropped_bytes: Some(self.dropped_bytes),
        }
    }
}

fn boundary_at_most(text: &str, mut at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn boundary_at_least(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(output: &mut Output) -> Vec<OutputChunk> {
        std::iter::from_fn(|| output.next_unsent()).collect()
    }

    #[test]
    fn streams_are_kept_apart_and_in_order() {
        let mut output = Output::default();
        output.push(Stream::Stdout, b"one ");
        output.push(Stream::Stdout, b"two");
        output.push(Stream::Stderr, b"oh");
        output.push(Stream::Stdout, b"three");
        output.finish();
        let chunks: Vec<_> =
            drain(&mut output).into_iter().map(|chunk| (chunk.seq, chunk.stream, chunk.data)).collect();
        assert_eq!(
            chunks,
            [
                (0, Some(Stream::Stdout), "one two".into()),
                (1, Some(Stream::Stderr), "oh".into()),
                (2, Some(Stream::Stdout), "three".into()),
            ]
        );
        assert_eq!(output.chunk_count(), 3);
    }

    #[test]
    fn a_character_across_two_reads_stays_whole() {
        let mut output = Output::default();
        let bytes = "naïve €".as_bytes();
        for byte in bytes {
            output.push(Stream::Stdout, std::slice::from_ref(byte));
        }
        output.push(Stream::Stdout, b"\xff\xe2\x82");
        output.finish();
        let text: String = drain(&mut output).into_iter().map(|chunk| chunk.data).collect();
        assert_eq!(text, "naïve €\u{fffd}\u{fffd}");
    }

    #[test]
    fn the_window_closes_and_opens_again_with_acknowledgements() {
        let mut output = Output::default();
        while output.has_room() {
            output.push(Stream::Stdout, &[b'x'; MAX_CHUNK_BYTES]);
        }
        assert!(output.held <= OUTPUT_WINDOW_BYTES + MAX_CHUNK_BYTES);
        let last = drain(&mut output).last().unwrap().seq;
        assert!(output.awaits_acknowledgement());
        assert!(output.acknowledge(last));
        assert!(!output.acknowledge(last), "no news");
        assert!(output.has_room() && !output.awaits_acknowledgement());
    }

    #[test]
    fn while_the_controller_is_away_the_first_and_last_half_are_kept_and_the_gap_is_counted() {
        let mut output = Output::default();
        let chunk = |n: u32| format!("{n:08}").repeat(MAX_CHUNK_BYTES / 8).into_bytes();
        for n in 0..1000 {
            output.push(Stream::Stdout, &chunk(n));
            output.seal();
            output.trim();
        }
        output.finish();
        let chunks = drain(&mut output);
        assert!(chunks.iter().enumerate().all(|(n, chunk)| chunk.seq == n as u64), "numbers have no holes");
        let gaps: Vec<_> = chunks.iter().filter_map(|chunk| chunk.gap_bytes).collect();
        assert_eq!(gaps, [output.dropped_bytes()]);
        assert_eq!(chunks.iter().map(|chunk| chunk.data.len() as u64).sum::<u64>() + gaps[0], 1000 * 16 * 1024);
        assert!(chunks[0].data.starts_with("00000000") && chunks.last().unwrap().data.starts_with("00000999"));
        assert!(chunks.len() * MAX_CHUNK_BYTES > OUTPUT_WINDOW_BYTES * 9 / 10);
    }

    #[test]
    fn what_was_sent_is_never_dropped_and_keeps_its_number() {
        let mut output = Output::default();
        while output.has_room() {
            output.push(Stream::Stdout, &[b'a'; MAX_CHUNK_BYTES]);
        }
        let sent = drain(&mut output);
        output.rewind();
        for _ in 0..500 {
            output.push(Stream::Stdout, &[b'b'; MAX_CHUNK_BYTES]);
            output.trim();
        }
        assert!(output.held <= 2 * OUTPUT_WINDOW_BYTES);
        let again = drain(&mut output);
        assert_eq!(again[..sent.len()], sent[..]);
        assert_eq!(again[sent.len()].seq, sent.len() as u64);
    }

    #[test]
    fn a_gap_at_the_very_end_is_marked_too() {
        let mut output = Output::default();
        while output.has_room() {
            output.push(Stream::Stdout, &[b'a'; MAX_CHUNK_BYTES]);
        }
        drain(&mut output);
        output.push(Stream::Stdout, &[b'b'; MAX_CHUNK_BYTES]);
        output.seal();
        output.drop_chunk(output.chunks.len() - 1);
        output.finish();
        assert_eq!(output.dropped_bytes(), MAX_CHUNK_BYTES as u64);
        assert_eq!(drain(&mut output).last().and_then(|chunk| chunk.gap_bytes), Some(output.dropped_bytes()));
    }

    #[test]
    fn the_repetition_is_the_end_of_the_output() {
        let mut output = Output::default();
        for n in 0..20_000 {
            output.push(Stream::Stdout, format!("€{n}\n").as_bytes());
        }
        output.finish();
        let all: String = drain(&mut output).into_iter().map(|chunk| chunk.data).collect();
        let repetition = output.repetition();
        assert!(repetition.is_final && repetition.seq == output.chunk_count());
        assert!(all.ends_with(&repetition.data));
        assert!((MAX_CHUNK_BYTES - 3..=MAX_CHUNK_BYTES).contains(&repetition.data.len()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn no_byte_is_lost_however_it_is_cut(
            pieces in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..20_000)), 0..6)
        ) {
            let mut output = Output::default();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            for (is_error, bytes) in &pieces {
                output.push(if *is_error { Stream::Stderr } else { Stream::Stdout }, bytes);
                if *is_error { &mut err } else { &mut out }.extend_from_slice(bytes);
            }
            output.finish();
            let chunks = drain(&mut output);
            prop_assert!(chunks.iter().all(|chunk| chunk.data.len() <= MAX_CHUNK_BYTES));
            let text = |of| chunks.iter().filter(|c| c.stream == Some(of)).map(|c| c.data.as_str()).collect::<String>();
            prop_assert_eq!(text(Stream::Stdout), String::from_utf8_lossy(&out));
            prop_assert_eq!(text(Stream::Stderr), String::from_utf8_lossy(&err));
        }
    }
}
