//! libFuzzer's way to the target `bodies`.
#![no_main]

use pistat_fuzz::targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    targets::bodies(data);
});
