//! Whole-system tests, one file per theme. Each test is a promise, named as a sentence.

mod access;
mod attacks;
mod browser;
mod catalogue;
mod chaos;
mod clients;
mod enrolment;
mod external;
mod fleet;
mod install;
mod output;
mod promises;
mod refusals;
mod requests;
mod survival;
