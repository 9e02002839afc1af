//! Whole-system tests, one file per theme. Each test is a promise, named as a sentence.

mod access;
mod attacks;
mod browser;
mod catalogue;
mod chaos;
mod clients;
mod documentation;
mod enrolment;
mod external;
mod fleet;
mod house;
mod install;
mod matrix;
mod output;
mod promises;
mod proxies;
mod refusals;
mod requests;
mod survival;
