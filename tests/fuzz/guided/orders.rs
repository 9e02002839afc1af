//! libFuzzer's way to the target `orders`.
#![no_main]

use pistat_fuzz::targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    targets::orders(data);
});
