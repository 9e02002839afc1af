//! libFuzzer's way to the target `task-files`.
#![no_main]

use pistat_fuzz::targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    targets::task_files(data);
});
