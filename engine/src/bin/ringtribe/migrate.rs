//! `ringtribe migrate`: a server.xml of Tomcat 5.5 for a line of today, and a table of what changed.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write as _};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ringtribe::server_xml::migrate::{Line, Migrated, Row, Surroundings, migrate};
use ringtribe::server_xml::{ServerXmlError, text_of};
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Value, json};

use crate::output;

/// What the command line says of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Migrate {
    pub(crate) file: PathBuf,
    pub(crate) to: Line,
    pub(crate) output: Option<PathBuf>,
    pub(crate) json: bool,
}

/// Bytes of an AJP secret; it is written in twice as many hexadecimal digits.
const SECRET_BYTES: usize = 16;
/// Most elements and texts of a web.xml.
const NODES_LIMIT_COUNT: u32 = 100_000;
/// A cell of the table is as wide as its longest, but no wider.
const MAX_CELL_CHARS: usize = 84;

/// Reads, migrates, and writes the output file if one is named.
///
/// # Errors
/// A sentence that names the file, the line, what is wrong and what to do.
pub(crate) fn migrated(options: &Migrate) -> Result<Migrated, String> {
    let name = options.file.display();
    let text = text_of(&options.file).map_err(|error| match error {
        // It names the file itself.
        ServerXmlError::Unreadable { .. } => error.to_string(),
        _ => format!("{name}: {error}"),
    })?;
    let machine = Machine { base: base_of(&options.file) };
    let migrated =
        migrate(&text, options.to, &machine).map_err(|error| format!("{name}: {error}"))?;
    if let Some(output) = &options.output {
        write(output, &options.file, &migrated.text)?;
    }
    Ok(migrated)
}

/// Prints the table, and the file if none was named for it.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn print(options: &Migrate, migrated: &Migrated) -> std::io::Result<ExitCode> {
    let Migrated { text, rows, secret } = migrated;
    if options.json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|Row { line, was, is, why }| json!({"line": line, "was": was, "is": is, "why": why}))
            .collect();
        let output = options.output.as_ref().map(|path| path.display().to_string());
        let text = output.is_none().then_some(text);
        output::object(&json!({
            "to": options.to.to_string(), "rows": rows, "secret": secret, "output": output,
            "server_xml": text,
        }))?;
    } else if options.output.is_some() {
        output::line(&table(rows))?;
    } else {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        eprintln!("{}", table(rows));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "nothing to change".to_owned();
    }
    let mut cells = vec![["line", "was", "is", "why"].map(str::to_owned)];
    cells.extend(rows.iter().map(|Row { line, was, is, why }| {
        let is = match is {
            None => "-",
            Some(is) if is == was => "stays",
            Some(is) => is,
        };
        [line.to_string(), was.clone(), is.to_owned(), why.clone()]
    }));
    let width = |column: usize| {
        let widths = cells.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0).min(MAX_CELL_CHARS)
    };
    let (was_width, is_width) = (width(1), width(2));
    let mut text = String::new();
    for [line, was, is, why] in &cells {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line:>4}  {was:<was_width$}  {is:<is_width$}  {why}");
    }
    text.truncate(text.trim_end().len());
    text
}

/// Writes a new file that only those may read who may read the one it comes from.
fn write(output: &Path, input: &Path, text: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            format!("--output {}: the file exists; name a new one", output.display())
        }
        _ => format!("--output {} cannot be written: {error}", output.display()),
    };
    let mode = std::fs::metadata(input).map_err(failed)?.permissions().mode() & 0o777;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(output).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        // Half a server.xml is worse than none; that it stays is not worth a second error.
        let _ = std::fs::remove_file(output);
        failed(error)
    })
}

/// This machine, and the Tomcat that the file lies in.
struct Machine {
    /// CATALINA_BASE, where an appBase is relative to; none if it is not known.
    base: Option<PathBuf>,
}

/// CATALINA_BASE of a file in its `conf`.
fn base_of(file: &Path) -> Option<PathBuf> {
    let file = file.canonicalize().ok()?;
    let folder = file.parent()?;
    (folder.file_name()? == "conf").then(|| folder.parent().map(Path::to_owned)).flatten()
}

impl Surroundings for Machine {
    fn secret(&self) -> std::io::Result<String> {
        let mut bytes = [0; SECRET_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn is_here(&self, address: IpAddr) -> bool {
        let bound = UdpSocket::bind((address, 0));
        !bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrNotAvailable)
    }

    fn not_copied(&self, app_base: &str) -> Vec<(String, String)> {
        let app_base = Path::new(app_base);
        let folder = match &self.base {
            Some(base) => base.join(app_base),
            None if app_base.is_absolute() => app_base.to_owned(),
            None => return Vec::new(),
        };
        let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
        let mut found: Vec<(String, String)> = entries
            .flatten()
            .filter_map(|entry| {
                let path = entry.path();
                let name = path.file_name()?.to_string_lossy().into_owned();
                Some((name, why_not_copied(&path)?))
            })
            .collect();
        found.sort();
        found
    }
}

/// Why the sessions of an application may not be copied; none if they are, or it is no application.
fn why_not_copied(path: &Path) -> Option<String> {
    if path.is_dir() {
        let web_xml = path.join("WEB-INF/web.xml");
        if !web_xml.exists() {
            return Some(
                "its sessions are not copied: it has no WEB-INF/web.xml; give it one with \
                         <distributable/>"
                    .to_owned(),
            );
        }
        return match is_distributable(&web_xml) {
            Ok(true) => None,
            Ok(false) => Some(
                "its sessions are not copied: its web.xml has no <distributable/>; \
                               add that element"
                    .to_owned(),
            ),
            Err(why) => Some(format!("whether its sessions are copied is not known: {why}")),
        };
    }
    let is_archive = path.extension().is_some_and(|end| end == "war");
    // One that is unpacked is looked at there.
    (is_archive && !path.with_extension("").is_dir()).then(|| {
        "whether its sessions are copied is not known: archives are not looked into; its web.xml \
         must have <distributable/>"
            .to_owned()
    })
}

fn is_distributable(web_xml: &Path) -> Result<bool, String> {
    let text = text_of(web_xml).map_err(|error| {
        format!("its web.xml cannot be read: {}", error.to_string().replace("server.xml", "it"))
    })?;
    // Up to Servlet 2.3 a web.xml has a document type.
    let options =
        ParsingOptions { allow_dtd: true, nodes_limit: NODES_LIMIT_COUNT, ..Default::default() };
    let text = text.trim_start_matches('\u{feff}');
    let document = Document::parse_with_options(text, options)
        .map_err(|error| format!("its web.xml is not XML: {error}"))?;
    let is_it = |child: Node<'_, '_>| child.tag_name().name() == "distributable";
    Ok(document.root_element().children().any(is_it))
}
