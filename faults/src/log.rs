//! Reads the log from outside the product: on Kafka as a consumer, decoded by apache-avro with the registry's schemas; on
//! the embedded engine through `millrace tail`.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use millrace_testkit::http_get;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Headers;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use crate::fold::{Counts, Hours, LogRecord};
use crate::system::{Engine, System};

const WITHIN: Duration = Duration::from_mins(1);

/// Every record of `analytics.events`.
pub(crate) fn events(system: &System) -> Result<Vec<LogRecord>, String> {
    match system.engine {
        Engine::Kafka => read(system, "analytics.events", |at, _, value| {
            let text = |name| match field(&value, name)? {
                Value::String(text) => Ok(text.clone()),
                other => Err(format!("{at}: {name} is {other:?}")),
            };
            let id = match field(&value, "event_id")? {
                Value::Union(1, id) => match &**id {
                    Value::String(id) => Some(id.clone()),
                    other => return Err(format!("{at}: event_id is {other:?}")),
                },
                _ => None,
            };
            let click = matches!(field(&value, "kind")?, Value::Enum(0, _));
            let timestamp_ms = number(&value, "timestamp")?;
            Ok(LogRecord { timestamp_ms, user: text("user")?, click, id, at })
        }),
        Engine::Embedded => tail(system, "analytics.events", |at, line| {
            let value = &line["value"];
            let text = |name: &str| value[name].as_str().map(str::to_owned);
            Some(LogRecord {
                timestamp_ms: millis(&text("timestamp")?)?,
                user: text("user")?,
                click: text("event")? == "click",
                id: text("event_id"),
                at,
            })
        }),
    }
}

/// The counts of every hour in `analytics.hourly`: the sum of each partition's newest record.
pub(crate) fn hourly(system: &System) -> Result<Hours, String> {
    let records = match system.engine {
        Engine::Kafka => read(system, "analytics.hourly", |_, partition, value| {
            // The position at the end of a step.
            if field(&value, "log_time").is_ok() {
                return Ok(None);
            }
            let counts = Counts {
                users: number(&value, "unique_users")?,
                clicks: number(&value, "clicks")?,
                impressions: number(&value, "impressions")?,
            };
            Ok(Some((number(&value, "hour")? / 3_600_000, partition, number(&value, "next_offset")?, counts)))
        })?,
        Engine::Embedded => tail(system, "analytics.hourly", |_, line| {
            let value = &line["value"];
            if value["log_time"].is_string() {
                return Some(None);
            }
            let count = |name: &str| value[name].as_u64();
            let counts =
                Counts { users: count("unique_users")?, clicks: count("clicks")?, impressions: count("impressions")? };
            let hour = millis(value["hour"].as_str()?)? / 3_600_000;
            Some(Some((hour, i32::try_from(count("partition")?).ok()?, count("next_offset")?, counts)))
        })?,
    };
    let mut newest: HashMap<(u64, i32), (u64, Counts)> = HashMap::new();
    for (hour, partition, next_offset, counts) in records.into_iter().flatten() {
        match newest.get(&(hour, partition)) {
            Some((before, _)) if *before > next_offset => {
                return Err(format!("hour {hour} of partition {partition}: {next_offset} comes after {before}"));
            }
            _ => newest.insert((hour, partition), (next_offset, counts)),
        };
    }
    let mut hours = Hours::new();
    for ((hour, _), (_, counts)) in newest {
        *hours.entry(hour).or_default() += counts;
    }
    Ok(hours)
}

fn millis(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok()
}

fn tail<T>(
    system: &System,
    topic: &str,
    take: impl Fn(String, &serde_json::Value) -> Option<T>,
) -> Result<Vec<T>, String> {
    let text = system.tool(&["tail", topic, "--json"])?;
    text.lines()
        .map(|line| {
            let json: serde_json::Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
            take(format!("{}@{}", json["partition"], json["offset"]), &json)
                .ok_or_else(|| format!("unexpected record: {line}"))
        })
        .collect()
}

/// The committed records of a topic of Millrace without repeats, decoded, each partition in order.
fn read<T>(
    system: &System,
    topic: &str,
    take: impl Fn(String, i32, Value) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let full = format!("{}{topic}", system.prefix());
    let mut schemas = HashMap::new();
    let mut records = Vec::new();
    let mut numbers = HashSet::new();
    for raw in raw(system, &full)? {
        let (at, Some(value)) = (format!("{}@{}", raw.partition, raw.offset), raw.value) else { continue };
        // What a producer wrote twice is one record.
        if raw.number.is_some_and(|number| !numbers.insert((raw.partition, number))) {
            continue;
        }
        let value = decode(system, &mut schemas, &value).map_err(|why| format!("{full} {at}: {why}"))?;
        records.push(take(at, raw.partition, value)?);
    }
    Ok(records)
}

/// A record as consumed.
pub(crate) struct RawRecord {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// The record's timestamp, of creation or append as the topic is configured; ms since the epoch.
    pub(crate) made_ms: i64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
    /// The header with the producer's number.
    pub(crate) number: Option<Vec<u8>>,
}

/// All committed records of a topic, each partition in order.
pub(crate) fn raw(system: &System, full: &str) -> Result<Vec<RawRecord>, String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", system.brokers())
        .set("group.id", "millrace-faults")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .create()
        .map_err(|error| error.to_string())?;
    let failed = |error| format!("{full}: {error}");
    let metadata = consumer.fetch_metadata(Some(full), WITHIN).map_err(failed)?;
    let mut list = TopicPartitionList::new();
    let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
    for partition in partitions {
        list.add_partition_offset(full, partition.id(), Offset::Beginning).map_err(failed)?;
    }
    consumer.assign(&list).map_err(failed)?;
    let (mut open, mut records) = (partitions.len(), Vec::new());
    let deadline = Instant::now() + WITHIN;
    while open > 0 {
        if Instant::now() > deadline {
            return Err(format!("{full}: did not reach its end within {WITHIN:?}"));
        }
        match consumer.poll(Duration::from_millis(200)) {
            None => {}
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(failed(error)),
            Some(Ok(message)) => records.push(RawRecord {
                partition: message.partition(),
                offset: message.offset(),
                made_ms: message.timestamp().to_millis().unwrap_or_default(),
                key: message.key().unwrap_or_default().to_vec(),
                value: message.payload().map(<[u8]>::to_vec),
                number: message.headers().and_then(number_of),
            }),
        }
    }
    Ok(records)
}

fn number_of(headers: &impl Headers) -> Option<Vec<u8>> {
    headers.iter().find(|header| header.key == "mr-n")?.value.map(<[u8]>::to_vec)
}

fn decode(system: &System, schemas: &mut HashMap<u32, Schema>, value: &[u8]) -> Result<Value, String> {
    let [0, a, b, c, d, datum @ ..] = value else { return Err("not in Confluent's wire format".to_owned()) };
    let id = u32::from_be_bytes([*a, *b, *c, *d]);
    let schema = match schemas.entry(id) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(schema(system, id)?),
    };
    let mut rest = datum;
    let reader = GenericDatumReader::builder(schema).build().map_err(|error| error.to_string())?;
    let decoded = reader.read_value(&mut rest).map_err(|error| error.to_string())?;
    if rest.is_empty() { Ok(decoded) } else { Err(format!("{} bytes after the value", rest.len())) }
}

fn schema(system: &System, id: u32) -> Result<Schema, String> {
    let address = *system.queries().first().ok_or("no query service")?;
    let answer = http_get(address, &format!("/registry/schemas/ids/{id}")).map_err(|error| error.to_string())?;
    let json: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    let text = json["schema"].as_str().ok_or_else(|| format!("schema {id}: {}", answer.text()))?;
    Schema::parse_str(text).map_err(|error| error.to_string())
}

fn field<'a>(record: &'a Value, name: &str) -> Result<&'a Value, String> {
    let Value::Record(fields) = record else { return Err(format!("not a record: {record:?}")) };
    let found = fields.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value).ok_or_else(|| format!("no field {name}"))
}

fn number(record: &Value, name: &str) -> Result<u64, String> {
    let number = match field(record, name)? {
        Value::Long(number) | Value::TimestampMillis(number) => *number,
        Value::Int(number) => i64::from(*number),
        other => return Err(format!("{name} is {other:?}")),
    };
    u64::try_from(number).map_err(|_| format!("{name} is {number}"))
}
