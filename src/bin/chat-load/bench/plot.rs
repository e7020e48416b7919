//! Plots as SVG: plain shapes and one style sheet, readable on a light page and on a dark one.

use std::fmt::Write as _;

/// Of the picture, and of the area with the values in it.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 740.0;
const TOP: f64 = 76.0;
const BOTTOM: f64 = 320.0;
/// Most ticks of a linear axis.
const TICKS: f64 = 8.0;

/// Colours that differ for the colour-blind too (Okabe and Ito); on dark ground a little lighter.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:15px}\
.ground{fill:#fff}.grid{stroke:#d0d7de;stroke-width:1}.line{fill:none;stroke-width:2}.dashed{stroke-dasharray:5 4}\
.c0{--c:#0072b2}.c1{--c:#6e7781}.c2{--c:#d55e00}.c3{--c:#a0527d}.line,.dot{stroke:var(--c)}.bar,.dot{fill:var(--c)}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.ground{fill:#0d1117}.grid{stroke:#30363d}\
.c0{--c:#56b4e9}.c1{--c:#9ea7b3}.c2{--c:#f0883e}.c3{--c:#d8a0c8}}";

/// What the values along one edge mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    label: &'static str,
    log: bool,
}

impl Axis {
    /// From zero on.
    pub(super) fn linear(label: &'static str) -> Self {
        Self { label, log: false }
    }

    /// By powers of ten.
    pub(super) fn log(label: &'static str) -> Self {
        Self { label, log: true }
    }

    fn scale(self, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Scale {
        let usable = |value: &f64| value.is_finite() && (!self.log || *value > 0.0);
        let (low, high) = values
            .filter(usable)
            .fold((f64::MAX, 0.0), |(low, high): (f64, f64), value| (low.min(value), high.max(value)));
        let high = if high > 0.0 { high } else { 1.0 };
        if self.log {
            let (low, high) = (low.min(high).log10().floor(), high.log10().ceil());
            Scale { log: true, low, high: high.max(low + 1.0), step: 1.0, from, to }
        } else {
            let rough = high / TICKS;
            let ten = 10_f64.powf(rough.log10().floor());
            let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|times| times * ten).into_iter().find(|step| *step >= rough);
            let step = step.unwrap_or(rough);
            Scale { log: false, low: 0.0, high: (high / step).ceil() * step, step, from, to }
        }
    }
}

/// From values to places in the picture.
#[derive(Debug, Clone, Copy)]
struct Scale {
    log: bool,
    /// Of a logarithmic one: exponents.
    low: f64,
    high: f64,
    step: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn place(&self, value: f64) -> f64 {
        let value = if self.log { value.max(f64::MIN_POSITIVE).log10() } else { value };
        self.from + (value - self.low).max(0.0) / (self.high - self.low) * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let count = ((self.high - self.low) / self.step).round() as usize;
        let at = |n| self.low + n as f64 * self.step;
        (0..=count).map(move |n| if self.log { 10_f64.powf(at(n)) } else { at(n) })
    }
}

/// A line of a plot.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: &'static str,
    /// Its place in the legend's order of colours.
    pub(super) colour: usize,
    pub(super) dashed: bool,
    pub(super) points: Vec<[f64; 2]>,
}

/// A plot of lines.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) title: &'static str,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
}

impl Lines {
    pub(super) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = self.x.scale(points().map(|point| point[0]), LEFT, RIGHT);
        let y = self.y.scale(points().map(|point| point[1]), BOTTOM, TOP);
        let mut picture = Picture::new(self.title);
        picture.y_axis(self.y, y);
        for value in x.ticks() {
            picture.text(x.place(value), BOTTOM + 18.0, "middle", &number(value));
        }
        picture.text(f64::midpoint(LEFT, RIGHT), BOTTOM + 42.0, "middle", self.x.label);
        for Line { colour, dashed, points, .. } in &self.lines {
            let places: Vec<[f64; 2]> = points.iter().map(|[a, b]| [x.place(*a), y.place(*b)]).collect();
            picture.line(*colour, *dashed, &places);
        }
        picture.legend(self.lines.iter().filter(|line| !line.dashed).map(|line| (line.colour, line.name)));
        picture.end()
    }
}

/// A plot of bars, in groups; a series' values are one for each group, not a number where there is none.
#[derive(Debug)]
pub(super) struct Bars {
    pub(super) title: &'static str,
    pub(super) y: Axis,
    pub(super) groups: Vec<String>,
    pub(super) series: Vec<(&'static str, Vec<f64>)>,
}

impl Bars {
    pub(super) fn svg(&self) -> String {
        let y = self.y.scale(self.series.iter().flat_map(|(_, values)| values.iter().copied()), BOTTOM, TOP);
        let mut picture = Picture::new(self.title);
        picture.y_axis(self.y, y);
        let group = (RIGHT - LEFT) / self.groups.len().max(1) as f64;
        let bar = group * 0.8 / self.series.len().max(1) as f64;
        for (n, name) in self.groups.iter().enumerate() {
            let left = LEFT + group * n as f64;
            picture.text(left + group / 2.0, BOTTOM + 20.0, "middle", name);
            for (colour, (_, values)) in self.series.iter().enumerate() {
                let left = left + group * 0.1 + bar * colour as f64;
                if let Some(value) = values.get(n).filter(|value| value.is_finite()) {
                    picture.bar(colour, left, bar, y.place(*value), &number(*value));
                }
            }
        }
        picture.legend(self.series.iter().enumerate().map(|(colour, (name, _))| (colour, *name)));
        picture.end()
    }
}

/// An SVG that is being written. Writing into a text cannot fail.
struct Picture(String);

impl Picture {
    fn new(title: &str) -> Self {
        let title = escaped(title);
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n\
             <style>{STYLE}</style>\n<rect class=\"ground\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\"/>\n\
             <text class=\"title\" x=\"16\" y=\"26\">{title}</text>\n"
        ))
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escaped(text);
        let _ = writeln!(self.0, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
    }

    fn y_axis(&mut self, axis: Axis, scale: Scale) {
        for value in scale.ticks() {
            let y = scale.place(value);
            let _ = writeln!(self.0, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
            self.text(LEFT - 8.0, y + 4.0, "end", &number(value));
        }
        self.text(RIGHT, 26.0, "end", axis.label);
    }

    fn line(&mut self, colour: usize, dashed: bool, places: &[[f64; 2]]) {
        let path: Vec<String> = places.iter().map(|[x, y]| format!("{x:.1} {y:.1}")).collect();
        let dash = if dashed { " dashed" } else { "" };
        let _ = writeln!(self.0, "<path class=\"line c{colour}{dash}\" d=\"M{}\"/>", path.join("L"));
        for [x, y] in places {
            let _ = writeln!(self.0, "<circle class=\"dot c{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>");
        }
    }

    fn bar(&mut self, colour: usize, left: f64, width: f64, top: f64, label: &str) {
        let (height, width_less) = ((BOTTOM - top).max(1.0), width * 0.9);
        let _ = writeln!(
            self.0,
            "<rect class=\"bar c{colour}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width_less:.1}\" height=\"{height:.1}\"/>"
        );
        self.text(left + width_less / 2.0, top - 5.0, "middle", label);
    }

    fn legend<'a>(&mut self, entries: impl Iterator<Item = (usize, &'a str)>) {
        /// Of a letter, about.
        const LETTER: f64 = 7.2;
        let mut x = 16.0;
        for (colour, name) in entries {
            let _ = writeln!(
                self.0,
                "<rect class=\"bar c{colour}\" x=\"{x:.1}\" y=\"42\" width=\"12\" height=\"12\" rx=\"2\"/>"
            );
            self.text(x + 18.0, 53.0, "start", name);
            x += 18.0 + LETTER * name.chars().count() as f64 + 16.0;
        }
    }

    fn end(mut self) -> String {
        self.0 += "</svg>\n";
        self.0
    }
}

/// With as many digits as mean something.
fn number(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value >= 1000.0 => {
            let text = format!("{value:.0}");
            let split = text.len().saturating_sub(3);
            format!("{},{}", text.get(..split).unwrap_or_default(), text.get(split..).unwrap_or_default())
        }
        value if value >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => {
            let text = format!("{value:.2}");
            if value < 0.01 { format!("{value}") } else { text.trim_end_matches('0').to_owned() }
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;").replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_find_their_places() {
        let linear = Axis::linear("").scale([300.0, 0.0].into_iter(), 0.0, 100.0);
        assert_eq!(linear.ticks().last(), Some(300.0));
        assert!((linear.place(150.0) - 50.0).abs() < 1e-9);
        let log = Axis::log("").scale([0.3, f64::NAN, 70.0].into_iter(), 100.0, 0.0);
        assert_eq!(log.ticks().count(), 4);
        assert!((log.place(0.1) - 100.0).abs() < 1e-9 && log.place(100.0).abs() < 1e-9);
        assert_eq!(
            [0.0, 0.1, 1.5, 12.34, 15_000.0, 1000.0].map(number),
            ["0", "0.1", "1.5", "12.3", "15,000", "1,000"]
        );
    }

    #[test]
    fn a_plot_without_values_is_a_plot() {
        let bars =
            Bars { title: "a < b", y: Axis::log("x"), groups: vec!["g".into()], series: vec![("s", vec![f64::NAN])] };
        let svg = bars.svg();
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
    }
}
