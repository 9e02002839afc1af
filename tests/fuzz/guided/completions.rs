//! libFuzzer's way to the target `completions`.
#![no_main]

use pistat_fuzz::targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    targets::completion(data);
});
