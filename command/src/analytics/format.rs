//! The formats of a batch.

use http::HeaderMap;
use millrace_contracts::Refusal;
use millrace_service::http::{BatchFormat, Charset, MediaTypes, json_text};

use super::cloud_event::{self, Attributes};
use super::items::Items;
use super::{cbor, csv, json};

/// The format of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json(BatchFormat),
    Csv,
    Cbor,
    /// An array of CloudEvents.
    CloudEvents,
    /// One CloudEvent: a batch of one.
    CloudEvent,
}

impl Format {
    /// The media types of batches.
    pub(super) const TYPES: MediaTypes<Self> = MediaTypes::new(&[
        ("application/x-ndjson", Self::Json(BatchFormat::Lines)),
        ("application/json", Self::Json(BatchFormat::Array)),
        ("text/csv", Self::Csv),
        ("application/cbor", Self::Cbor),
        ("application/cloudevents-batch+json", Self::CloudEvents),
        ("application/cloudevents+json", Self::CloudEvent),
    ]);

    /// That of a request, and the charset of its text.
    pub(super) fn of(headers: &HeaderMap) -> Result<(Self, Charset), Refusal> {
        let (format, charset) = Self::TYPES.of(headers)?;
        // Texts of CBOR are UTF-8, and the rest of it is no text.
        Ok((format, if format == Self::Cbor { Charset::UTF_8 } else { charset }))
    }

    /// The attributes of a CloudEvent in binary mode, of which the body is the data: a batch of one, too.
    pub(super) fn attributes(self, headers: &HeaderMap) -> Result<Option<Attributes<'static>>, Refusal> {
        match self {
            Self::CloudEvents | Self::CloudEvent => Ok(None),
            _ => Attributes::of_headers(headers, self == Self::Json(BatchFormat::Array)),
        }
    }

    /// Reads the items of a body.
    ///
    /// # Errors
    /// When the body is not in this format, or has too many items.
    pub(super) fn read(
        self,
        attributes: Option<&Attributes<'_>>,
        body: &[u8],
        items: &mut Items<'_>,
    ) -> Result<(), Refusal> {
        let now = items.now();
        if let Some(attributes) = attributes {
            return items.push(attributes.fields(json_text(body)?, now));
        }
        match self {
            Self::Json(format) => {
                let texts = format.split(body, items.max())?;
                items.reserve(texts.len());
                texts.into_iter().try_for_each(|text| items.push(text.and_then(json::fields)))
            }
            Self::Csv => csv::read(body, items),
            Self::Cbor => cbor::read(body, items),
            Self::CloudEvents => {
                let texts = BatchFormat::Array.split(body, items.max())?;
                texts
                    .into_iter()
                    .try_for_each(|text| items.push(text.and_then(|text| cloud_event::structured(text, now))))
            }
            Self::CloudEvent => items.push(cloud_event::structured(json_text(body)?, now)),
        }
    }
}
