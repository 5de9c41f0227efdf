//! Goodput against offered load as an SVG, in the style of the documentation's figures.

use std::fmt::Write as _;

use anyhow::ensure;

/// Goodput at one offered load, both in multiples of the engine's peak.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    offered: f64,
    goodput: f64,
}

/// An engine's points.
#[derive(Debug, PartialEq)]
struct Series {
    name: String,
    points: Vec<Point>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
/// Left, right, top and bottom of the plane.
const PLANE: [f64; 4] = [64.0, 692.0, 56.0, 318.0];

/// Draws a table with one line per point: the engine's name (underscores for spaces), offered load, goodput, and the peak
/// that both are divided by.
pub(crate) fn draw(table: &str) -> anyhow::Result<String> {
    let series = parse(table)?;
    let points = || series.iter().flat_map(|one| &one.points);
    let widest = points().map(|point| point.offered).fold(1.0, f64::max).ceil();
    // Whole quarters, with space above the peak.
    let highest = points().map(|point| (point.goodput * 4.0).ceil() / 4.0).fold(1.25, f64::max);
    let mut svg = head(&series);
    axes(&mut svg, widest, highest)?;
    for (one, class) in series.iter().zip(["a", "b", "c"]) {
        let at = |point: &Point| (x(point.offered, widest), y(point.goodput, highest));
        let corners: Vec<_> = one.points.iter().map(at).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        writeln!(svg, r#"  <polyline class="line {class}" points="{}"/>"#, corners.join(" "))?;
        for (x, y) in one.points.iter().map(at) {
            writeln!(svg, r#"  <circle class="dot {class}" cx="{x:.1}" cy="{y:.1}" r="3.5"/>"#)?;
        }
    }
    let mut left = PLANE[0] + 8.0;
    for (one, class) in series.iter().zip(["a", "b", "c"]) {
        writeln!(svg, r#"  <circle class="dot {class}" cx="{left}" cy="36" r="5"/>"#)?;
        writeln!(svg, r#"  <text class="text" x="{}" y="41">{}</text>"#, left + 12.0, one.name)?;
        left += 40.0 + 8.0 * one.name.len() as f64;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn parse(table: &str) -> anyhow::Result<Vec<Series>> {
    let mut series: Vec<Series> = Vec::new();
    for line in table.lines().filter(|line| !line.trim().is_empty()) {
        let [name, offered, goodput, peak] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            anyhow::bail!("not a name and three numbers: {line}")
        };
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
        let numbers = (number(offered), number(goodput), number(peak).filter(|peak| *peak > 0.0));
        let (Some(offered), Some(goodput), Some(peak)) = numbers else { anyhow::bail!("not numbers: {line}") };
        let point = Point { offered: offered / peak, goodput: goodput / peak };
        let name = name.replace('_', " ");
        ensure!(name.chars().all(|c| c.is_ascii_alphanumeric() || " .-".contains(c)), "not a plain name: {name}");
        match series.iter_mut().find(|one| one.name == name) {
            Some(one) => one.points.push(point),
            None => series.push(Series { name, points: vec![point] }),
        }
    }
    ensure!((1..=3).contains(&series.len()), "the plot takes one to three engines");
    for one in &mut series {
        one.points.sort_by(|a, b| a.offered.total_cmp(&b.offered));
    }
    Ok(series)
}

fn x(offered: f64, widest: f64) -> f64 {
    PLANE[0] + (PLANE[1] - PLANE[0]) * offered / widest
}

fn y(goodput: f64, highest: f64) -> f64 {
    PLANE[3] - (PLANE[3] - PLANE[2]) * goodput / highest
}

fn head(series: &[Series]) -> String {
    let texts: Vec<_> = series.iter().filter_map(|one| Some((&one.name, one.points.last()?))).collect();
    let texts = texts.iter().map(|(name, last)| format!("{name}: {:.2} at {:.1} times", last.goodput, last.offered));
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" font-size="14" role="img" aria-labelledby="title desc">
  <title id="title">Goodput against offered load</title>
  <desc id="desc">Both in multiples of the peak. {}.</desc>
  <style>
    .panel {{ fill: #ffffff; stroke: #d0d7de; }}
    .text {{ fill: #1f2328; }}
    .note {{ fill: #59636e; font-size: 12.5px; }}
    .grid {{ stroke: #d0d7de; }}
    .aim {{ stroke: #1a7f37; stroke-width: 1.5; stroke-dasharray: 5 4; }}
    .aim-note {{ fill: #1a7f37; font-size: 12.5px; }}
    .line {{ fill: none; stroke-width: 2; stroke-linejoin: round; }}
    .a {{ stroke: #0969da; }}
    .b {{ stroke: #bc4c00; }}
    .c {{ stroke: #8250df; }}
    .dot {{ stroke: none; }}
    .dot.a {{ fill: #0969da; }}
    .dot.b {{ fill: #bc4c00; }}
    .dot.c {{ fill: #8250df; }}
    @media (prefers-color-scheme: dark) {{
      .panel {{ fill: #0d1117; stroke: #3d444d; }}
      .text {{ fill: #f0f6fc; }}
      .note {{ fill: #9198a1; }}
      .grid {{ stroke: #3d444d; }}
      .aim {{ stroke: #3fb950; }}
      .aim-note {{ fill: #3fb950; }}
      .a {{ stroke: #4493f8; }}
      .b {{ stroke: #f0883e; }}
      .c {{ stroke: #ab7df8; }}
      .dot.a {{ fill: #4493f8; }}
      .dot.b {{ fill: #f0883e; }}
      .dot.c {{ fill: #ab7df8; }}
    }}
  </style>
  <rect class="panel" x="1" y="1" width="{}" height="{}" rx="10"/>
"#,
        texts.collect::<Vec<_>>().join("; "),
        WIDTH - 2.0,
        HEIGHT - 2.0,
    )
}

fn axes(svg: &mut String, widest: f64, highest: f64) -> anyhow::Result<()> {
    let [left, right, _, bottom] = PLANE;
    let mut goodput = 0.0;
    while goodput <= highest {
        let y = y(goodput, highest);
        writeln!(svg, r#"  <path class="grid" d="M{left} {y:.1} H{right}"/>"#)?;
        writeln!(
            svg,
            r#"  <text class="note" x="{}" y="{:.1}" text-anchor="end">{goodput:.2}</text>"#,
            left - 8.0,
            y + 4.0
        )?;
        goodput += if highest > 2.0 { 0.5 } else { 0.25 };
    }
    let mut offered = 0.0;
    while offered <= widest {
        let x = x(offered, widest);
        writeln!(svg, r#"  <path class="grid" d="M{x:.1} {bottom} v5"/>"#)?;
        writeln!(
            svg,
            r#"  <text class="note" x="{x:.1}" y="{}" text-anchor="middle">{offered}</text>"#,
            bottom + 20.0
        )?;
        offered += (widest / 8.0).ceil();
    }
    let middle = f64::midpoint(left, right);
    writeln!(
        svg,
        r#"  <text class="note" x="{middle}" y="{}" text-anchor="middle">offered load, in multiples of the peak</text>"#,
        bottom + 44.0
    )?;
    writeln!(
        svg,
        r#"  <text class="note" x="20" y="20">acknowledged events per second, in multiples of the peak</text>"#
    )?;
    let aim = y(0.8, highest);
    writeln!(svg, r#"  <path class="aim" d="M{left} {aim:.1} H{right}"/>"#)?;
    writeln!(svg, r#"  <text class="aim-note" x="{right}" y="{:.1}" text-anchor="end">aim: 0.8</text>"#, aim + 16.0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_points_to_their_peak_and_sorts_them() {
        let series = parse("Apache_Kafka 200 90 100\n\nembedded 50 50 200\nApache_Kafka 50 50 100\n").unwrap();
        let point = |offered, goodput| Point { offered, goodput };
        assert_eq!(
            series,
            [
                Series { name: "Apache Kafka".into(), points: vec![point(0.5, 0.5), point(2.0, 0.9)] },
                Series { name: "embedded".into(), points: vec![point(0.25, 0.25)] },
            ]
        );
        for bad in ["", "x 1 2", "x 1 2 0", "x 1 2 y", "x 1 -2 3", "<x> 1 2 3", "a 1 1 1\nb 1 1 1\nc 1 1 1\nd 1 1 1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn draws_every_point_inside_the_plane() {
        let svg = draw("kafka 25 25 100\nkafka 500 300 100\n").unwrap();
        let attribute = |line: &str, name: &str| -> Option<f64> {
            line.split_once(&format!(" {name}=\""))?.1.split('"').next()?.parse().ok()
        };
        let dots: Vec<_> = svg.lines().filter(|line| line.contains(r#"r="3.5""#)).collect();
        assert_eq!(dots.len(), 2);
        for dot in dots {
            let (x, y) = (attribute(dot, "cx").unwrap(), attribute(dot, "cy").unwrap());
            assert!((PLANE[0]..=PLANE[1]).contains(&x) && (PLANE[2]..=PLANE[3]).contains(&y), "{dot}");
        }
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("kafka: 3.00 at 5.0 times"), "the description states the values");
    }
}
