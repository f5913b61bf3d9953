//! The table of statistics in the text format of OpenMetrics, which Prometheus reads.
use super::Sample;
use super::statistics::{Kind, Number, PREFIX, STATISTICS, Statistic};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The media type of [`render`]'s text.
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All statistics of a sample.
///
/// # Errors
/// None that a `String` could cause.
pub(super) fn render(sample: Arc<Sample>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Table(sample)));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

#[derive(Debug)]
struct Table(Arc<Sample>);

impl Collector for Table {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        STATISTICS.iter().try_for_each(|statistic| encode(statistic, &self.0, &mut encoder))
    }
}

fn encode(statistic: &Statistic, sample: &Sample, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let series = statistic.series(sample);
    if series.is_empty() {
        return Ok(());
    }
    let kind = match statistic.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
    };
    let unit = statistic.unit.map(|unit| Unit::Other(unit.to_owned()));
    let mut metric = encoder.encode_descriptor(statistic.name, statistic.help, unit.as_ref(), kind)?;
    for (values, number) in series {
        let labels: Vec<(&str, Cow<'_, str>)> = statistic.all_labels().zip(values).collect();
        if labels.is_empty() {
            encode_number(statistic.kind, number, &mut metric)?;
        } else {
            encode_number(statistic.kind, number, &mut metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn encode_number(kind: Kind, number: Number, metric: &mut MetricEncoder<'_>) -> fmt::Result {
    match (kind, number) {
        (Kind::Counter, Number::Whole(n)) => metric.encode_counter::<NoLabelSet, _, f64>(&n, None),
        (Kind::Counter, Number::Real(n)) => metric.encode_counter::<NoLabelSet, _, f64>(&n, None),
        (Kind::Gauge, Number::Whole(n)) => metric.encode_gauge(&n),
        (Kind::Gauge, Number::Real(n)) => metric.encode_gauge(&n),
    }
}
