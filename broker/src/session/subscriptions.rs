//! SUBSCRIBE and UNSUBSCRIBE: checked here for form and rights, carried out by the hub.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::{Close, Session};
use crate::contract::{Command, SubscribeRequest, UnsubscribeRequest};
use crate::events::BrokerEvent;
use crate::limits::{TOPIC_BYTES, TOPIC_LEVELS};
use crate::packet::{self, Fault, Subscribe, Unsubscribe, reason, write};

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub(super) async fn on_subscribe(&mut self, subscribe: Subscribe<'_>) -> Result<(), Close> {
        self.outbound.check_answer(subscribe.filters.len())?;
        self.count(subscribe.filters.len());
        self.publish_batch().await?;
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        let mut filters = Vec::new();
        for (text, options) in &subscribe.filters {
            let (code, options) = self.check_filter(text, *options)?;
            codes.push(code);
            if code == reason::SUCCESS {
                filters.push(((*text).into(), options));
            }
        }
        let (reply, answer) = oneshot::channel();
        let (session, position) = (self.id, self.front.spine.position());
        let request = SubscribeRequest { session, position, identifier: subscribe.identifier, filters, reply };
        let mut granted = self.ask(Command::Subscribe(request), answer).await?.into_iter();
        for code in &mut codes {
            if *code == reason::SUCCESS {
                *code = granted.next().unwrap_or(reason::UNSPECIFIED);
            }
            if !self.v5 && *code >= 0x80 {
                *code = reason::UNSPECIFIED;
            }
        }
        write::suback(&mut self.transport.output, subscribe.packet_id, self.v5, &codes);
        Ok(())
    }

    /// Success when the filter may be given to the hub with these options, otherwise the reason
    /// code of its refusal.
    fn check_filter(
        &self,
        text: &str,
        mut options: packet::SubscriptionOptions,
    ) -> Result<(u8, packet::SubscriptionOptions), Fault> {
        let Some(parsed) = crate::filter::parse(text, TOPIC_BYTES, TOPIC_LEVELS) else {
            let why = "the filter is malformed, too long, or holds a control character";
            return Ok((self.refuse_filter(text, reason::FILTER_INVALID, why), options));
        };
        if self.is_bridge {
            // What a bridge expects without being able to ask for it: its own messages would go
            // round in circles.
            options.no_local = parsed.group.is_none();
            options.retain_as_published = true;
        }
        if parsed.group.is_some() && options.no_local {
            return Err(packet::protocol_error("No Local on a shared subscription"));
        }
        if !self.front.access.may_subscribe(&self.identity, parsed.filter) {
            let code = self.refuse_filter(text, reason::NOT_AUTHORIZED, "the account may not receive these topics");
            return Ok((code, options));
        }
        Ok((reason::SUCCESS, options))
    }

    fn refuse_filter(&self, filter: &str, code: u8, why: &str) -> u8 {
        self.front.counters.subscribes_refused.add(1);
        self.front.events.send(BrokerEvent::SubscribeRefused {
            account: self.client.account.to_string(),
            client_id: self.client.client_id.to_string(),
            filter: filter.to_owned(),
            reason: why.to_owned(),
        });
        code
    }

    pub(super) async fn on_unsubscribe(&mut self, unsubscribe: Unsubscribe<'_>) -> Result<(), Close> {
        self.outbound.check_answer(unsubscribe.filters.len())?;
        self.count(unsubscribe.filters.len());
        self.publish_batch().await?;
        let (reply, answer) = oneshot::channel();
        let filters = unsubscribe.filters.iter().map(|&text| text.into()).collect();
        let (session, position) = (self.id, self.front.spine.position());
        let request = UnsubscribeRequest { session, position, filters, reply };
        let codes = self.ask(Command::Unsubscribe(request), answer).await?;
        write::unsuback(&mut self.transport.output, unsubscribe.packet_id, self.v5, &codes);
        Ok(())
    }

    async fn ask<T>(&mut self, command: Command, answer: oneshot::Receiver<T>) -> Result<T, Close> {
        self.front.commands.send(command).await.map_err(|_| Close::Stopping)?;
        answer.await.map_err(|_| Close::Stopping)
    }
}
