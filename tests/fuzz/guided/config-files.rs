//! libFuzzer's way to the target `config-files`.
#![no_main]

use pistat_fuzz::targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    targets::config_files(data);
});
