//! Copies and compresses the viewer's files: our own from `assets/`, Swagger UI's from its archive.

use std::io::{Cursor, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?);
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["index.html", "viewer.js"] {
        let source = Path::new("assets").join(name);
        println!("cargo::rerun-if-changed={}", source.display());
        write(&out, name, &fs::read(&source)?)?;
    }
    let mut archive = zip::ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    for name in ["swagger-ui-bundle.js", "swagger-ui.css"] {
        let end = format!("/dist/{name}");
        let matches = |path: &&str| path.starts_with("swagger-ui-") && path.ends_with(&end);
        let path = archive.file_names().find(matches).map(str::to_owned);
        let path = path.ok_or_else(|| io::Error::other(format!("the archive has no {name}")))?;
        let mut bytes = Vec::new();
        archive.by_name(&path)?.read_to_end(&mut bytes)?;
        write(&out, name, &bytes)?;
    }
    Ok(())
}

fn write(out: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::write(out.join(name), bytes)?;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(bytes)?;
    fs::write(out.join(format!("{name}.gz")), gzip.finish()?)
}
