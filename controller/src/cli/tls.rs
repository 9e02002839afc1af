//! `tls init`: a private certificate authority, and a server certificate that it signed.
//!
//! Certificates are valid from 2020 on, because a Pi without a battery clock may boot in the past,
//! and until 2049, because a private authority that nobody watches should not stop a fleet.
//! Existing files are never overwritten; an existing authority is used again.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use pistat_support::file;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use super::{console::Console, failure::Failure};
use crate::terminal::Style;

const AUTHORITY: [&str; 2] = ["ca.pem", "ca-key.pem"];
const SERVER: [&str; 2] = ["server.pem", "server-key.pem"];

pub(super) fn init(console: &mut Console<'_>, names: Vec<String>, folder: &Path) -> Result<(), Failure> {
    let names = if names.is_empty() { default_names() } else { names };
    let [cert, key] = SERVER.map(|file| folder.join(file));
    refuse_existing(&[&cert, &key])?;
    fs::create_dir_all(folder).map_err(Failure::file(format!("{} cannot be made", folder.display())))?;
    let (issuer, authority) = authority(folder)?;
    let server_key = KeyPair::generate().map_err(rcgen_failure)?;
    let server = server_parameters(&names)?.signed_by(&server_key, &issuer).map_err(rcgen_failure)?;
    // Clients are given the whole chain, and find the authority in it by its key.
    write_new(&cert, &format!("{}{authority}", server.pem()))?;
    write_new(&key, &server_key.serialize_pem())?;
    report(console, &names, folder, [&cert, &key])
}

fn default_names() -> Vec<String> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    if !host.is_empty() && host != "localhost" {
        // Most home networks know a machine by mDNS.
        names.extend([host.clone(), format!("{host}.local")]);
    }
    names
}

fn refuse_existing(files: &[&PathBuf]) -> Result<(), Failure> {
    let existing = files.iter().find(|file| file.symlink_metadata().is_ok());
    existing.map_or(Ok(()), |file| {
        let sentence = format!(
            "{} exists, and nothing is overwritten: move it away, or name another folder with --dir",
            file.display()
        );
        Err(Failure::Refused(sentence))
    })
}

/// The authority of the folder, made now unless it is there, with its certificate in PEM.
fn authority(folder: &Path) -> Result<(Issuer<'static, KeyPair>, String), Failure> {
    let [cert, key] = AUTHORITY.map(|file| folder.join(file));
    if cert.exists() && key.exists() {
        let read =
            |path: &Path| file::read_text(path).map_err(Failure::file(format!("{} cannot be read", path.display())));
        let pem = read(&cert)?;
        let key = KeyPair::from_pem(&read(&key)?).map_err(rcgen_failure)?;
        return Ok((Issuer::from_ca_cert_pem(&pem, key).map_err(rcgen_failure)?, pem));
    }
    refuse_existing(&[&cert, &key])?;
    let pair = KeyPair::generate().map_err(rcgen_failure)?;
    let parameters = authority_parameters();
    let pem = parameters.self_signed(&pair).map_err(rcgen_failure)?.pem();
    write_new(&key, &pair.serialize_pem())?;
    write_new(&cert, &pem)?;
    Ok((Issuer::new(parameters, pair), pem))
}

fn authority_parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "Pi Stat private authority");
    // It signs servers and nothing below them.
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    dated(parameters)
}

fn server_parameters(names: &[String]) -> Result<CertificateParams, Failure> {
    let wrong =
        |error| Failure::Usage(format!("The names {} cannot stand in a certificate: {error}", names.join(", ")));
    let mut parameters = CertificateParams::new(names).map_err(wrong)?;
    parameters.distinguished_name.push(DnType::CommonName, names.first().map_or("pistat", String::as_str));
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    Ok(dated(parameters))
}

fn dated(mut parameters: CertificateParams) -> CertificateParams {
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(2049, 12, 31);
    parameters
}

/// Creates a file that only its owner may read.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(Failure::file(format!("{} cannot be written", path.display())))
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn rcgen_failure(error: rcgen::Error) -> Failure {
    Failure::Refused(format!("The certificate cannot be made: {error}"))
}

fn report(
    console: &mut Console<'_>,
    names: &[String],
    folder: &Path,
    [cert, key]: [&PathBuf; 2],
) -> Result<(), Failure> {
    let ca = folder.join(AUTHORITY[0]);
    let value = serde_json::json!({"ca": ca, "cert": cert, "key": key, "names": names});
    let text = |_: &serde_json::Value, _: Style| {
        let files = format!("cert = \"{}\"\nkey  = \"{}\"\n", cert.display(), key.display());
        format!(
            "✔ A certificate for {}\n\nFor config/pistat.toml:\n\n[http.tls]\n{files}\n[mqtt.tls]\nlisten = \"0.0.0.0:8883\"\n{files}\n\
             Agents, browsers and MQTT clients trust it by {}; give it to agents with --ca.\n\
             Keep {} secret and safe: with it you make the next certificate.\n",
            names.join(", "),
            ca.display(),
            folder.join(AUTHORITY[1]).display()
        )
    };
    console.show(&value, text)
}
