//! What a new machine fetches from this controller: a script, and the agent for its kind of
//! processor.
//!
//! The script names the SHA-256 of every agent, and whoever shows the command that fetches it names
//! the script's. So one number, learnt by an authenticated way, vouches for everything that is
//! fetched by an open one. No name from outside becomes a path: it is an [`Architecture`] first.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    str::FromStr,
    time::SystemTime,
};

use pistat_protocol::order::{hex, sha256};
use tokio::sync::Mutex;

use crate::config::Config;

/// Where packages put the agents.
const PACKAGED: &str = "/usr/share/pistat/agents";

/// The folder inside the state folder where a person can put agents.
const OWN_FOLDER: &str = "agents";

/// An agent has two or three megabytes. What is much larger is a debug build: nothing to hand out,
/// and seconds of work to hash at every start.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The script, with a place for everything that is filled in.
const TEMPLATE: &str = include_str!("../../packaging/install.sh");

/// The units that it installs, by the names of their places.
const UNITS: [(&str, &str); 3] = [
    ("@pistat-agent.service@", include_str!("../../packaging/systemd/pistat-agent.service")),
    ("@pistat-runner.socket@", include_str!("../../packaging/systemd/pistat-runner.socket")),
    ("@pistat-runner@.service@", include_str!("../../packaging/systemd/pistat-runner@.service")),
];

/// A kind of processor for which there is an agent (`packaging/build`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// 64-bit boards: Pi 3, 4, 5, Zero 2 with a 64-bit system.
    Aarch64,
    /// 32-bit systems on a Pi 2 and later.
    Armv7,
    /// Pi 1, Zero, Zero W; runs on all later ones.
    Armv6,
    /// PCs.
    X86_64,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Aarch64, Self::Armv7, Self::Armv6, Self::X86_64];

    /// Its name in addresses and file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64",
            Self::Armv7 => "armv7",
            Self::Armv6 => "armv6",
            Self::X86_64 => "x86_64",
        }
    }

    /// The machines that it is for.
    pub const fn boards(self) -> &'static str {
        match self {
            Self::Aarch64 => "Pi 3, 4, 5 and Zero 2 with a 64-bit system",
            Self::Armv7 => "Pi 2 and later with a 32-bit system",
            Self::Armv6 => "Pi 1, Zero and Zero W",
            Self::X86_64 => "PCs",
        }
    }

    /// That of this program, whose agent is beside it when both were built together.
    fn own() -> Option<Self> {
        Self::of_target(env!("PISTAT_TARGET"))
    }

    /// That of a Rust target.
    fn of_target(triple: &str) -> Option<Self> {
        match triple.split('-').next()? {
            "aarch64" => Some(Self::Aarch64),
            "armv7" | "thumbv7neon" => Some(Self::Armv7),
            "arm" => Some(Self::Armv6),
            "x86_64" => Some(Self::X86_64),
            _ => None,
        }
    }

    /// Whether a file is a program for this processor, by its ELF header (System V ABI, "ELF
    /// Header"): magic number, class, little-endian, and `e_machine`. The header is the same for
    /// both 32-bit ARMs.
    fn is_of(self, file: &[u8]) -> bool {
        let (class, machine) = match self {
            Self::Aarch64 => (2, 183_u16),
            Self::Armv7 | Self::Armv6 => (1, 40),
            Self::X86_64 => (2, 62),
        };
        file.starts_with(&[0x7f, b'E', b'L', b'F', class, 1]) && file.get(18..20) == Some(&machine.to_le_bytes())
    }
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|architecture| architecture.name() == text)
            .ok_or_else(|| format!("there is no agent for {text:?}: it is one of {}", names(Self::ALL)))
    }
}

/// Names, for a sentence.
pub fn names(architectures: impl IntoIterator<Item = Architecture>) -> String {
    architectures.into_iter().map(Architecture::name).collect::<Vec<_>>().join(", ")
}

/// An agent that can be handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// For which processor.
    pub architecture: Architecture,
    /// Its file.
    pub path: PathBuf,
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// The install script as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The script.
    pub text: String,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// For which processors there are agents.
    pub architectures: Vec<Architecture>,
}

/// The agents of this controller.
#[derive(Debug)]
pub struct Downloads {
    /// Where agents are looked for, in this order; at least one.
    folders: Vec<PathBuf>,
    /// The agent beside this program.
    beside: Option<PathBuf>,
    /// The checksum of each file, `None` for one that is not handed out. A file is read again only
    /// when it has changed. Locked while a file is read, so that many requests cost no more than
    /// one.
    known: Mutex<HashMap<PathBuf, (Stamp, Option<String>)>>,
}

/// What changes when a file does.
type Stamp = (u64, SystemTime);

impl Downloads {
    /// Looks where the configuration says; without that in the state folder, then where packages
    /// put agents. The agent beside this program comes last.
    pub fn new(config: &Config) -> Self {
        let folders = match &config.http.downloads {
            Some(folder) => vec![folder.clone()],
            None => vec![config.state.join(OWN_FOLDER), PACKAGED.into()],
        };
        let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join("pistat-agent")));
        Self { folders, beside, known: Mutex::default() }
    }

    /// Where the agents are that may be handed out.
    pub fn places(&self) -> impl Iterator<Item = PathBuf> {
        self.folders.iter().chain(&self.beside).cloned()
    }

    /// The agent for a processor, if there is one that can be read.
    pub async fn find(&self, architecture: Architecture) -> Option<Program> {
        let named = format!("pistat-agent-{}", architecture.name());
        let beside = self.beside.clone().filter(|_| Architecture::own() == Some(architecture));
        for path in self.folders.iter().map(|folder| folder.join(&named)).chain(beside) {
            if let Some(sha256) = self.digest(&path, architecture).await {
                return Some(Program { architecture, path, sha256 });
            }
        }
        None
    }

    /// The folder for an agent that this controller does not have yet.
    pub fn folder(&self) -> &Path {
        &self.folders[0]
    }

    /// The script, with the agents that there are now.
    pub async fn script(&self) -> Script {
        let mut programs = Vec::new();
        for architecture in Architecture::ALL {
            programs.extend(self.find(architecture).await);
        }
        render(&programs)
    }

    async fn digest(&self, path: &Path, architecture: Architecture) -> Option<String> {
        let mut known = self.known.lock().await;
        let metadata = tokio::fs::metadata(path).await.ok().filter(std::fs::Metadata::is_file)?;
        let stamp = (metadata.len(), metadata.modified().ok()?);
        if let Some((then, sum)) = known.get(path)
            && *then == stamp
        {
            return sum.clone();
        }
        let sum = match read(path, metadata.len(), architecture).await {
            Ok(sum) => Some(sum),
            Err(reason) => {
                // In the agents folder somebody put it there; beside this program it may be any
                // build.
                if self.beside.as_deref() == Some(path) {
                    tracing::debug!("{} is not handed out: {reason}", path.display());
                } else {
                    tracing::warn!("{} is not handed out: {reason}", path.display());
                }
                None
            }
        };
        known.insert(path.to_owned(), (stamp, sum.clone()));
        sum
    }
}

/// The checksum of an agent, or why the file cannot be one for this processor.
async fn read(path: &Path, length: u64, architecture: Architecture) -> Result<String, String> {
    if length > MAX_BYTES {
        return Err(format!("it has {length} bytes, more than the {MAX_BYTES} of a release build"));
    }
    let bytes = tokio::fs::read(path).await.map_err(|error| error.to_string())?;
    if !architecture.is_of(&bytes) {
        return Err(format!("it is not a program for {}", architecture.name()));
    }
    Ok(hex(&sha256(&bytes)))
}

fn render(programs: &[Program]) -> Script {
    let lines: Vec<_> =
        programs.iter().map(|program| format!("{} {}", program.architecture.name(), program.sha256)).collect();
    let mut text = TEMPLATE.replace("@CHECKSUMS@", &lines.join("\n"));
    for (place, unit) in UNITS {
        text = text.replace(place, unit.trim_end());
    }
    let sha256 = hex(&sha256(text.as_bytes()));
    Script { text, sha256, architectures: programs.iter().map(|program| program.architecture).collect() }
}

/// One line for a POSIX shell that fetches the script, compares it with its SHA-256, and only then
/// runs it, with the token on standard input.
///
/// The file is the caller's own, so that nobody else of that machine can change it between the
/// comparison and the start. `web/src/ui/install.ts` makes the same line.
pub fn command(url: &str, pi: &str, label: &str, token: &str, script_sha256: &str) -> String {
    format!(
        "f=$(mktemp) && curl -fsS {url}/install.sh -o \"$f\" && echo \"{script_sha256}  $f\" | sha256sum -c - && \
         printf %s {token} | sudo sh \"$f\" --controller-url {url} --pi-id {pi} --label {label}",
        url = quoted(url),
        pi = quoted(pi),
        label = quoted(label),
        token = quoted(token),
    )
}

/// A POSIX shell's word: as it is when harmless, else in single quotes.
fn quoted(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(harmless) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with the header of a program, as far as it is looked at.
    fn program(architecture: Architecture, text: &str) -> Vec<u8> {
        let (class, machine) = match architecture {
            Architecture::Aarch64 => (2, 0xb7),
            Architecture::Armv7 | Architecture::Armv6 => (1, 0x28),
            Architecture::X86_64 => (2, 0x3e),
        };
        let mut bytes = vec![0; 20];
        bytes[..6].copy_from_slice(&[0x7f, 0x45, 0x4c, 0x46, class, 1]);
        bytes[18] = machine;
        bytes.extend(text.bytes());
        bytes
    }

    fn downloads(folder: &Path) -> Downloads {
        Downloads { folders: vec![folder.to_owned()], beside: None, known: Mutex::default() }
    }

    #[test]
    fn only_the_names_of_processors_are_understood() {
        for architecture in Architecture::ALL {
            assert_eq!(architecture.name().parse(), Ok(architecture));
        }
        for text in ["", "AARCH64", "../aarch64", "aarch64/..", "riscv64", "aarch64\0"] {
            let sentence = text.parse::<Architecture>().unwrap_err();
            assert!(sentence.contains("aarch64, armv7, armv6, x86_64"), "{sentence}");
        }
    }

    #[tokio::test]
    async fn the_script_names_the_checksum_of_every_agent_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let downloads = downloads(folder.path());
        assert_eq!(downloads.script().await.architectures, []);
        let agent = program(Architecture::Armv6, "abc");
        std::fs::write(folder.path().join("pistat-agent-armv6"), &agent).unwrap();
        let script = downloads.script().await;
        assert_eq!(script.architectures, [Architecture::Armv6]);
        assert!(script.text.contains(&format!("\narmv6 {}\n", hex(&sha256(&agent)))), "{}", script.text);
        assert_eq!(script.sha256, hex(&sha256(script.text.as_bytes())));
    }

    #[tokio::test]
    async fn an_agent_that_was_replaced_has_its_new_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let downloads = downloads(folder.path());
        let file = folder.path().join("pistat-agent-x86_64");
        std::fs::write(&file, program(Architecture::X86_64, "old")).unwrap();
        let old = downloads.find(Architecture::X86_64).await.unwrap();
        assert_eq!(downloads.find(Architecture::X86_64).await.unwrap(), old);
        let newer = program(Architecture::X86_64, "newer");
        std::fs::write(&file, &newer).unwrap();
        assert_eq!(downloads.find(Architecture::X86_64).await.unwrap().sha256, hex(&sha256(&newer)));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(downloads.find(Architecture::X86_64).await, None);
    }

    #[tokio::test]
    async fn a_debug_build_is_not_handed_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(folder.path().join("pistat-agent-armv7")).unwrap();
        file.set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(downloads(folder.path()).find(Architecture::Armv7).await, None);
    }

    #[tokio::test]
    async fn a_program_for_another_processor_is_not_handed_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(format!("pistat-agent-{name}"));
        for architecture in Architecture::ALL {
            let right = program(architecture, "");
            let mut big_endian = right.clone();
            big_endian[5] = 2;
            let others = Architecture::ALL.map(|other| program(other, "")).into_iter().filter(|other| *other != right);
            let wrong = others.chain([b"#!/bin/sh\n".to_vec(), right[..19].to_vec(), Vec::new(), big_endian]);
            for bytes in wrong {
                std::fs::write(file(architecture.name()), &bytes).unwrap();
                let found = downloads(folder.path()).find(architecture).await;
                assert_eq!(found, None, "{architecture:?} {bytes:?}");
            }
            std::fs::write(file(architecture.name()), &right).unwrap();
            assert!(downloads(folder.path()).find(architecture).await.is_some(), "{architecture:?}");
        }
    }

    #[tokio::test]
    async fn the_agent_beside_this_program_is_handed_out_to_machines_of_the_same_processor_only() {
        let own = Architecture::own().expect("tests run on a processor for which there are agents");
        let folder = tempfile::tempdir().unwrap();
        let beside = folder.path().join("pistat-agent");
        std::fs::write(&beside, program(own, "")).unwrap();
        let downloads = Downloads { beside: Some(beside), ..downloads(&folder.path().join("agents")) };
        assert_eq!(downloads.script().await.architectures, [own]);
    }

    #[test]
    fn each_target_that_programs_are_built_for_has_its_processor() {
        for (triple, expected) in [
            ("aarch64-unknown-linux-gnu", Some(Architecture::Aarch64)),
            ("aarch64-unknown-linux-musl", Some(Architecture::Aarch64)),
            ("armv7-unknown-linux-gnueabihf", Some(Architecture::Armv7)),
            ("thumbv7neon-unknown-linux-gnueabihf", Some(Architecture::Armv7)),
            ("arm-unknown-linux-gnueabihf", Some(Architecture::Armv6)),
            ("x86_64-unknown-linux-gnu", Some(Architecture::X86_64)),
            ("i686-unknown-linux-gnu", None),
            ("riscv64gc-unknown-linux-gnu", None),
        ] {
            assert_eq!(Architecture::of_target(triple), expected, "{triple}");
        }
    }

    #[test]
    fn everything_is_filled_in() {
        let script = render(&[]);
        for (place, unit) in UNITS {
            assert!(TEMPLATE.contains(place) && !script.text.contains(place), "{place}");
            assert!(unit.lines().all(|line| script.text.contains(line) && line != "PISTAT_END"), "{place}");
        }
        assert!(TEMPLATE.contains("@CHECKSUMS@") && !script.text.contains("@CHECKSUMS@"));
    }

    #[test]
    fn words_of_the_command_are_quoted_for_a_shell() {
        let command = command("http://pi.example:8000", "pi-1", "Tom's Shed $1", "a.b", "00ff");
        assert_eq!(
            command,
            "f=$(mktemp) && curl -fsS http://pi.example:8000/install.sh -o \"$f\" && echo \"00ff  $f\" | sha256sum -c - && \
             printf %s a.b | sudo sh \"$f\" --controller-url http://pi.example:8000 --pi-id pi-1 --label 'Tom'\\''s Shed $1'"
        );
    }
}
