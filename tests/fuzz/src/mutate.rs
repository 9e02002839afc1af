//! Bytes that nearly make sense: pieces of a corpus, cut, joined, repeated, and changed.

/// Words that readers look for: what is between them matters less.
const WORDS: [&[u8]; 40] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"9223372036854775808",
    b"0x0",
    b"\\u0000",
    b"\\ud800",
    b"pistat/",
    b"/task/",
    b"/execute",
    b"$pistat/enroll/",
    b"@all",
    b"@",
    b"+",
    b"#",
    b"//",
    b"..",
    b"%00",
    b"--",
    b"-",
    b";",
    b"$(id)",
    b"\n",
    b"\0",
    b"\xff\xfe",
    b"\xf0\x9f\x98\x80",
    b"\x1b]0;",
    b"task run ",
    b"kind",
    b"signature",
    b"payload",
    b"args",
];

/// `SplitMix64` (Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `end`; zero when there is none.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) >> 1).unwrap_or(0) % end.max(1)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap_or(0)
    }
}

/// Makes an input out of a corpus, in place of what `input` held.
pub fn mutate(dice: &mut Dice, corpus: &[Vec<u8>], input: &mut Vec<u8>) {
    input.clear();
    if !corpus.is_empty() {
        input.extend_from_slice(&corpus[dice.below(corpus.len())]);
    }
    for _ in 0..=dice.below(6) {
        change(dice, corpus, input);
    }
    input.truncate(64 * 1024);
}

fn change(dice: &mut Dice, corpus: &[Vec<u8>], input: &mut Vec<u8>) {
    let at = dice.below(input.len() + 1);
    let end = (at + dice.below(16)).min(input.len());
    match dice.below(9) {
        0 if !input.is_empty() => {
            let at = at % input.len();
            input[at] ^= 1 << dice.below(8);
        }
        1 if !input.is_empty() => {
            let at = at % input.len();
            input[at] = dice.byte();
        }
        2 => {
            input.drain(at..end);
        }
        3 => {
            let piece = input[at..end].to_vec();
            let again = dice.below(input.len() + 1);
            input.splice(again..again, piece);
        }
        4 => {
            let byte = dice.byte();
            input.insert(at, byte);
        }
        5 => input.truncate(at),
        6 if !corpus.is_empty() => {
            let other = &corpus[dice.below(corpus.len())];
            let from = dice.below(other.len() + 1);
            input.splice(at..end, other[from..].iter().copied());
        }
        _ => {
            let word = WORDS[dice.below(WORDS.len())];
            input.splice(at..end, word.iter().copied());
        }
    }
}
