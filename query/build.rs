//! Compresses the dashboard's files at build time, so that no request has to.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const FILES: [&str; 8] = [
    "index.html",
    "app.js",
    "chart.js",
    "range.js",
    "pipeline.js",
    "dashboard.css",
    "vendor/uPlot.iife.min.js",
    "vendor/uPlot.min.css",
];

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?);
    println!("cargo::rerun-if-changed=build.rs");
    for file in FILES {
        let source = Path::new("assets").join(file);
        println!("cargo::rerun-if-changed={}", source.display());
        let bytes = fs::read(&source)?;
        let name =
            source.file_name().ok_or_else(|| io::Error::other("a file has a name"))?.to_string_lossy().into_owned();
        fs::write(out.join(&name), &bytes)?;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&bytes)?;
        fs::write(out.join(format!("{name}.gz")), gzip.finish()?)?;
        let mut br = Vec::new();
        brotli::BrotliCompress(&mut bytes.as_slice(), &mut br, &brotli::enc::BrotliEncoderParams::default())?;
        fs::write(out.join(format!("{name}.br")), br)?;
    }
    Ok(())
}
