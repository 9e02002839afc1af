//! Whole-system tests, one file per theme. Each test is a promise, named as a sentence.
