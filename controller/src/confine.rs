//! What tasks on the controller's own machine cannot reach: they run as the controller's user, and
//! everything that the controller keeps is that user's.
//!
//! Each such task is started by this program's own binary (`pistat confine-task`), which gives up
//! its rights with Landlock and then becomes the task: no code runs between a fork and the task,
//! and what was given up stays so for everything that the task starts. Landlock only knows what is
//! allowed, so everything beside the protected paths is allowed by name, and the folders above them
//! can be listed and nothing else: nothing new can be made in those. Where the kernel has no
//! Landlock the tasks run as before, and the controller says so at its start.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope,
};
use rustix::{
    fs::{Mode, OFlags},
    thread::{CapabilitySet, remove_capability_from_bounding_set},
};

use crate::{config::Config, install::Downloads};

/// The hidden command.
const WORD: &str = "confine-task";

/// Before each path that a task can neither read nor write.
const HIDE: &str = "--hide";

/// Before each path that a task can read and not write.
const FIX: &str = "--fix";

/// The newest interface whose rights are asked for: its scope keeps signals from the controller.
/// Older kernels enforce what they know.
const NEWEST: ABI = ABI::V6;

/// The exit codes of a shell for a program that is not there, and one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// What is kept from tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// Neither read nor written.
    hidden: Vec<PathBuf>,
    /// Read only.
    fixed: Vec<PathBuf>,
}

impl Confinement {
    /// What this configuration keeps: the state folder, keys and the file in which a broker's
    /// password may stand are hidden. The catalogue, this program and the agents that are handed
    /// out are fixed, since whoever changes them decides what runs, here or on the machines. The
    /// state folder must exist.
    pub(crate) fn of(config: &Config, file: &Path) -> Self {
        let tls = config.http.tls.iter().chain(config.mqtt.tls.as_ref().map(|tls| &tls.tls));
        let keys = tls.map(|tls| tls.key.clone());
        let hidden = [config.state.clone(), file.to_owned()].into_iter().chain(keys);
        let agents = Downloads::new(config);
        let fixed = [config.tasks.clone()].into_iter().chain(std::env::current_exe()).chain(agents.places());
        let real = |paths: &mut dyn Iterator<Item = PathBuf>| paths.filter_map(|path| real_path(&path)).collect();
        Self { hidden: real(&mut hidden.into_iter()), fixed: real(&mut fixed.into_iter()) }
    }

    /// The words before those of a task. By this process's own program, even where an update has
    /// put another in its place.
    pub(crate) fn launcher(&self) -> Vec<OsString> {
        let paths = |flag: &'static str, paths: &[PathBuf]| {
            paths.iter().flat_map(move |path| [flag.into(), path.clone().into_os_string()]).collect::<Vec<OsString>>()
        };
        let mut words: Vec<OsString> = vec!["/proc/self/exe".into(), WORD.into()];
        words.extend(paths(HIDE, &self.hidden));
        words.extend(paths(FIX, &self.fixed));
        words.push("--".into());
        words
    }

    /// What a launcher's words say, and the words of the task.
    fn parse(words: &[OsString]) -> Option<(Self, &[OsString])> {
        let mut this = Self::default();
        let mut rest = words;
        loop {
            match rest {
                [end, task @ ..] if end == "--" && !task.is_empty() => return Some((this, task)),
                [flag, path, others @ ..] if flag == HIDE => {
                    this.hidden.push(path.into());
                    rest = others;
                }
                [flag, path, others @ ..] if flag == FIX => {
                    this.fixed.push(path.into());
                    rest = others;
                }
                _ => return None,
            }
        }
    }

    fn hides(&self, path: &Path) -> bool {
        self.hidden.iter().any(|hidden| path.starts_with(hidden))
    }

    /// What is allowed, by path: everything beside what is protected.
    fn rules(&self) -> Vec<(PathBuf, BitFlags<AccessFs>)> {
        let fixed = self.fixed.iter().filter(|path| !self.hides(path));
        let protected: Vec<&PathBuf> = self.hidden.iter().chain(fixed).collect();
        let above: BTreeSet<&Path> =
            protected.iter().flat_map(|path| path.ancestors().skip(1)).filter(|path| !self.hides(path)).collect();
        let mut rules = Vec::new();
        for folder in &above {
            rules.push(((*folder).to_owned(), AccessFs::ReadDir.into()));
            for entry in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if above.contains(entry.as_path()) || self.hides(&entry) {
                    continue;
                }
                // What lies in something that is fixed is fixed with it.
                let is_fixed = self.fixed.iter().any(|fixed| entry.starts_with(fixed));
                rules.push((entry, if is_fixed { AccessFs::from_read(NEWEST) } else { AccessFs::from_all(NEWEST) }));
            }
        }
        rules
    }

    /// Gives up the rights of this process and of all that it starts. Without Landlock nothing is
    /// given up.
    fn enforce(&self) -> Result<(), RulesetError> {
        // Root's alone: with them the kernel shows the environment of every process, confined or
        // not (`may_access_mm`). Nobody else has them to give up.
        for capability in [CapabilitySet::PERFMON, CapabilitySet::SYS_ADMIN] {
            let _ = remove_capability_from_bounding_set(capability);
        }
        let ruleset = Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?.scope(Scope::Signal)?;
        let mut ruleset = ruleset.create()?;
        for (path, access) in self.rules() {
            // What has gone meanwhile, or cannot be opened, needs no rule.
            let Ok((file, is_folder)) = open_itself(&path) else { continue };
            let access = if is_folder { access } else { access & AccessFs::from_file(NEWEST) };
            ruleset = ruleset.add_rule(PathBeneath::new(file, access))?;
        }
        ruleset.restrict_self()?;
        Ok(())
    }
}

/// Whether this kernel can confine tasks, and lets this process ask for it.
pub(crate) fn is_available() -> bool {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset.handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create).is_ok()
}

/// What to say where it cannot.
pub(crate) const UNAVAILABLE: &str = "this kernel has no Landlock, so tasks on `controller` can read what the controller's user can read, its tokens and \
                                      keys too: keep tasks with free text off it (`on = […]`); docs/security.md says more";

/// The path without symbolic links. Of a file that is not there yet, that it would have.
fn real_path(path: &Path) -> Option<PathBuf> {
    let folder = || path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let missing = || Some(fs::canonicalize(folder()?).ok()?.join(path.file_name()?));
    fs::canonicalize(path).ok().or_else(missing)
}

/// The file itself. A symbolic link is none: where it leads has a rule of its own, or none.
fn open_itself(path: &Path) -> io::Result<(File, bool)> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let kind = file.metadata()?.file_type();
    if kind.is_symlink() { Err(io::ErrorKind::InvalidInput.into()) } else { Ok((file, kind.is_dir())) }
}

/// Becomes a task if that is what the words ask for, and otherwise returns `None`. Comes back only
/// if it failed.
pub fn start(mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if words.nth(1).as_deref() != Some(OsStr::new(WORD)) {
        return None;
    }
    let words: Vec<OsString> = words.collect();
    let Some((confinement, task)) = Confinement::parse(&words) else {
        eprintln!("pistat {WORD} is how the controller starts tasks on its own machine; it is not for other use");
        return Some(ExitCode::from(64));
    };
    if let Err(error) = confinement.enforce() {
        eprintln!("pistat: the task was not started, since it could not be confined: {error}");
        return Some(ExitCode::from(NOT_RUN));
    }
    let mut command = Command::new(&task[0]);
    // A home that it cannot read would be a trouble to every program that looks for its settings.
    if std::env::var_os("HOME").is_some_and(|home| confinement.hides(Path::new(&home))) {
        command.env("HOME", "/");
    }
    let error = command.args(&task[1..]).exec();
    eprintln!("pistat: {} could not be started: {error}", task[0].display());
    Some(ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_says_what_it_was_made_of() {
        let confinement = Confinement { hidden: vec!["/a".into(), "/b c".into()], fixed: vec!["/d".into()] };
        let mut words = confinement.launcher();
        words.extend(["cat".into(), "--hide".into()]);
        let (parsed, task) = Confinement::parse(&words[2..]).unwrap();
        assert_eq!((parsed, task), (confinement, &["cat".into(), "--hide".into()][..]));
        for words in [&[][..], &["--"], &["--hide"], &["--hide", "/a"], &["cat"]] {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            assert!(Confinement::parse(&words).is_none(), "{words:?}");
        }
    }

    #[test]
    fn everything_beside_what_is_protected_is_allowed_and_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let of = |name: &str| root.join(name);
        for name in [
            "etc/pistat.toml",
            "etc/tasks.toml",
            "etc/hosts",
            "lib/state/admin.token",
            "lib/state/tls/key.pem",
            "lib/other/x",
        ] {
            fs::create_dir_all(of(name).parent().unwrap()).unwrap();
            fs::write(of(name), "x").unwrap();
        }
        let confinement = Confinement {
            hidden: vec![of("lib/state"), of("etc/pistat.toml"), of("lib/state/tls/key.pem")],
            fixed: vec![of("etc/tasks.toml"), of("lib/state/inner.toml")],
        };
        let rules = confinement.rules();
        let rule = |path: &Path| rules.iter().find(|(of, _)| of == path).map(|(_, access)| *access);
        let (all, list) = (AccessFs::from_all(NEWEST), BitFlags::from(AccessFs::ReadDir));
        assert_eq!(rule(&of("etc/hosts")), Some(all));
        assert_eq!(rule(&of("lib/other")), Some(all));
        assert_eq!(rule(&of("etc/tasks.toml")), Some(AccessFs::from_read(NEWEST)));
        for path in [Path::new("/"), &root, &of("etc"), &of("lib")] {
            assert_eq!(rule(path), Some(list), "{}", path.display());
        }
        assert_eq!(rule(Path::new("/usr")), Some(all), "the system is as it was");
        let hidden = [of("lib/state"), of("etc/pistat.toml")];
        assert!(rules.iter().all(|(path, _)| !hidden.iter().any(|hidden| path.starts_with(hidden))));
    }

    #[test]
    fn the_agents_that_are_handed_out_are_fixed_and_so_is_all_in_a_fixed_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        for name in ["state/x", "agents/pistat-agent-arm", "agents/secret/key", "agents/pistat.toml"] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), "x").unwrap();
        }
        let mut config = Config { state: root.join("state"), ..Config::default() };
        config.http.downloads = Some(root.join("agents"));
        let confinement = Confinement::of(&config, &root.join("agents/pistat.toml"));
        let beside = fs::canonicalize(std::env::current_exe().unwrap()).unwrap().with_file_name("pistat-agent");
        for path in [root.join("agents"), beside] {
            assert!(confinement.fixed.contains(&path), "{}: {confinement:?}", path.display());
        }
        // The program may lie in that folder, and something that is hidden, too.
        let fixed = vec![root.join("agents"), root.join("agents/pistat-agent-arm")];
        let confinement = Confinement { hidden: vec![root.join("agents/secret/key")], fixed };
        let rules = confinement.rules();
        let rule = |name: &str| rules.iter().find(|(of, _)| *of == root.join(name)).map(|(_, access)| *access);
        let read = AccessFs::from_read(NEWEST);
        for (name, expected) in [
            ("agents/pistat-agent-arm", Some(read)),
            ("agents/pistat.toml", Some(read)),
            ("agents", Some(AccessFs::ReadDir.into())),
            ("agents/secret", Some(AccessFs::ReadDir.into())),
            ("agents/secret/key", None),
            ("state", Some(AccessFs::from_all(NEWEST))),
        ] {
            assert_eq!(rule(name), expected, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_yet_is_protected_where_it_would_be() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        std::os::unix::fs::symlink(&root, root.join("link")).unwrap();
        assert_eq!(real_path(&root.join("link/tasks.toml")), Some(root.join("tasks.toml")));
        assert_eq!(
            real_path(Path::new("no-such-file-here")).unwrap().file_name(),
            Some(OsStr::new("no-such-file-here"))
        );
    }
}
