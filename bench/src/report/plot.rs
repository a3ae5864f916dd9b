// SPDX-License-Identifier: MIT OR Apache-2.0

//! Plots in SVG: a line for each implementation over what the scenario varies.

use std::path::Path;

use anyhow::{anyhow, Result};
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::data::Data;
use super::table::{label, number, varies};
use crate::row::Mode;

/// Width and height.
const SIZE: (u32, u32) = (820, 480);
/// Figures further apart than this get a logarithmic scale.
const FAR: f64 = 8.0;
/// Colours of the lines of a plot; colour-blind readers can distinguish them.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(0, 0, 0),
];

/// One line: where its points are on the axis of categories, and how high.
struct Line<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

/// The axes.
struct Axes {
    title: String,
    across: &'static str,
    up: &'static str,
    labels: Vec<String>,
}

/// Draws a scenario of a mode to `path`; false, and there is no file, if it varies nothing.
pub fn plot(data: &Data, mode: Mode, scenario: &str, path: &Path) -> Result<bool> {
    let params = data.params(mode, scenario);
    if params.len() < 2 {
        return Ok(false);
    }
    let line = |name| Line {
        name,
        points: params
            .iter()
            .enumerate()
            .filter_map(|(place, &param)| {
                let summary = data.get(mode, scenario, name, param)?;
                Some((place as f64, summary.median))
            })
            .collect(),
    };
    let names = data.implementations(mode, scenario);
    let lines: Vec<_> = names.into_iter().map(line).collect();
    let axes = Axes {
        title: scenario.to_owned(),
        across: varies(scenario),
        up: data.unit(mode, scenario).name(),
        labels: params.iter().map(|&param| label(scenario, param)).collect(),
    };
    let heights = lines.iter().flat_map(|line| &line.points);
    let (least, most) = heights.fold((f64::MAX, f64::MIN), |(least, most), &(_, y)| {
        (least.min(y), most.max(y))
    });
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    let drawn = if most / least > FAR {
        draw(&area, (least / 1.5..most * 1.5).log_scale(), &axes, &lines)
    } else {
        draw(&area, 0.0..most * 1.15, &axes, &lines)
    };
    drawn.map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))?;
    Ok(true)
}

fn draw<Y>(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    heights: Y,
    axes: &Axes,
    lines: &[Line<'_>],
) -> Result<(), Box<dyn std::error::Error>>
where
    Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    area.fill(&WHITE)?;
    let last = axes.labels.len() as f64 - 1.0;
    let mut chart = ChartBuilder::on(area)
        .caption(&axes.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(84)
        .build_cartesian_2d(-0.25..last + 0.25, heights)?;
    let at = |place: &f64| {
        // Marks between the categories stay blank.
        let index = place.round();
        let near = (place - index).abs() < 0.01 && index >= 0.0;
        let name = near.then(|| axes.labels.get(index as usize)).flatten();
        name.cloned().unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(axes.labels.len() * 2)
        .x_label_formatter(&at)
        .y_label_formatter(&|value| number(*value))
        .x_desc(axes.across)
        .y_desc(axes.up)
        .draw()?;
    for (line, color) in lines.iter().zip(COLORS.iter().cycle()) {
        let style = color.stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style))?
            .label(line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        let dots = line.points.iter();
        chart.draw_series(dots.map(|&point| Circle::new(point, 3, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::data::tests::CSV;
    use super::*;

    #[test]
    fn a_plot_names_its_lines_and_its_categories() {
        let data = Data::read(CSV.as_bytes()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plot.svg");
        assert!(plot(&data, Mode::Instructions, "unicast", &file).unwrap());
        let text = std::fs::read_to_string(&file).unwrap();
        for word in ["bus1 raw", "seqpacket", "64 B", "instructions"] {
            assert!(text.contains(word), "no {word}");
        }
        let other = dir.path().join("none.svg");
        assert!(!plot(&data, Mode::Time, "unicast", &other).unwrap());
        assert!(!other.exists());
    }
}
