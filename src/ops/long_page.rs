//! Pages of lists, as many items as are asked for (contract 4.3): the first ones are read before anything is answered, and
//! over REST the others follow piece by piece. A message of a session holds the first piece only.

use std::future::Future;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Context, Reply, RestBody, RestReply};
use crate::error::{Error, Kind, Result};
use crate::store::users::Page;

/// A page of a list.
#[derive(JsonSchema)]
pub struct PageOf<T> {
    /// The page.
    items: Vec<T>,
    /// How long the list is.
    total: u64,
    /// As asked.
    limit: u64,
    /// As asked.
    offset: u64,
    #[schemars(skip)]
    rest: Option<Rest<T>>,
}

/// The way to what does not fit in a piece.
struct Rest<T> {
    context: Context,
    pieces: BoxStream<'static, Result<Vec<T>>>,
}

/// A piece of a list.
pub(super) struct Piece<T> {
    /// The items.
    pub(super) items: Vec<T>,
    /// How long the list is; of the first piece only.
    pub(super) total: u64,
    /// Where the next piece goes on, for a list that may lose items in front meanwhile.
    pub(super) behind: Option<String>,
}

/// Which piece.
pub(super) struct Part {
    /// At most so many items.
    pub(super) limit: u64,
    /// So many of the list are passed over, unless `behind` says where it goes on.
    pub(super) offset: u64,
    /// [`Piece::behind`] of the piece before.
    pub(super) behind: Option<String>,
}

/// The limit and the offset of a page, with what they are if nobody says them.
pub(super) fn page(limit: Option<u64>, offset: Option<u64>) -> Result<Page> {
    match limit.unwrap_or(50) {
        0 => Err(Error::invalid("limit", "expected 1 or more")),
        limit => Ok(Page { limit, offset: offset.unwrap_or(0) }),
    }
}

impl<T: Send + 'static> PageOf<T> {
    /// A page of which `read` brings the pieces, of at most so many items.
    pub(super) async fn read<F, Fut>(context: &Context, page: Page, most: u64, read: F) -> Result<PageOf<T>>
    where
        F: Fn(Part) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Piece<T>>> + Send,
    {
        let Page { limit, offset } = page;
        let first = read(Part { limit: limit.min(most), offset, behind: None }).await?;
        let here = first.items.len() as u64;
        let may_follow = here == most && limit > most && offset.saturating_add(here) < first.total;
        let rest = may_follow.then(|| {
            let next =
                Part { limit: limit - here, offset: offset.saturating_add(here), behind: first.behind };
            Rest { context: context.clone(), pieces: pieces(next, most, read) }
        });
        Ok(PageOf { items: first.items, total: first.total, limit, offset, rest })
    }
}

/// The pieces from `next` on, which has the limit of all of them.
fn pieces<T, F, Fut>(next: Part, most: u64, read: F) -> BoxStream<'static, Result<Vec<T>>>
where
    T: Send + 'static,
    F: Fn(Part) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Piece<T>>> + Send,
{
    let pieces = stream::try_unfold((next, read), move |(mut next, read)| async move {
        let limit = next.limit.min(most);
        if limit == 0 {
            return Ok(None);
        }
        let piece = read(Part { limit, offset: next.offset, behind: next.behind.take() }).await?;
        let here = piece.items.len() as u64;
        next.limit = if here < limit { 0 } else { next.limit - here };
        (next.offset, next.behind) = (next.offset.saturating_add(here), piece.behind);
        Ok((here > 0).then_some((piece.items, (next, read))))
    });
    pieces.boxed()
}

impl<T> PageOf<T> {
    fn tail(&self) -> String {
        format!("],\"total\":{},\"limit\":{},\"offset\":{}}}", self.total, self.limit, self.offset)
    }
}

/// Items with commas between them.
fn joined<T: Serialize>(items: &[T]) -> Result<String> {
    let list = serde_json::to_string(items).map_err(Error::internal)?;
    Ok(list.strip_prefix('[').and_then(|list| list.strip_suffix(']')).unwrap_or_default().to_owned())
}

const HEAD: &str = "{\"items\":[";

impl<T: Serialize + Send + 'static> Reply for PageOf<T> {
    fn rpc(&self) -> Result<String> {
        if self.rest.is_some() {
            let detail = format!(
                "limit: a message holds at most {} items: use offset, or ask over REST",
                self.items.len()
            );
            return Err(Error::new(Kind::TooLarge, detail));
        }
        Ok(format!("{HEAD}{}{}", joined(&self.items)?, self.tail()))
    }

    fn rest(mut self: Box<Self>, _member: Option<&str>, _with_revision: bool) -> Result<RestReply> {
        let (tail, first) = (self.tail(), format!("{HEAD}{}", joined(&self.items)?));
        let body = match self.rest.take() {
            None => RestBody::Whole(first + &tail),
            Some(Rest { context, pieces }) => {
                let reading = context.app.lists.place(context.holder())?;
                let further = pieces.and_then(move |items| {
                    let text = reading.keep().and_then(|()| Ok(format!(",{}", joined(&items)?)));
                    std::future::ready(text)
                });
                let around = |text: String| stream::once(std::future::ready(Ok(text)));
                RestBody::Pieces(around(first).chain(further).chain(around(tail)).boxed())
            }
        };
        Ok(RestReply { body, revision: None })
    }
}
