"""The transactions that user code sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from lineshaft.store.port import Transaction as StoreTransaction


class Transaction:
    """Injected into a synchronous task that takes one: what it writes commits together with its outcome.

    `session` is a SQLAlchemy `Session` on the store's database. The task must touch nothing else that
    matters, and neither commit nor roll back: returning commits, raising rolls back.
    """

    __slots__ = ("_lent", "_session", "submitted")

    def __init__(self, lent: StoreTransaction) -> None:
        self._lent = lent
        self._session: Any = None
        self.submitted = False
        """Whether runs were submitted in it, of which the workers hear when it has committed."""

    @property
    def session(self) -> Session:
        if self._session is None:
            self._session = self._lent.session()
        session: Session = self._session
        return session

    @property
    def lent(self) -> StoreTransaction:
        """The store's side of it."""
        return self._lent

    def finish(self) -> None:
        """Write what the session still holds back."""
        if self._session is not None:
            self._lent.finish(self._session)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()


class AsyncTransaction:
    """Injected into an async task that takes one, and given by `app.transaction()`.

    `session` is a SQLAlchemy `AsyncSession` on the store's database.
    """

    __slots__ = ("_lent", "_session", "submitted")

    def __init__(self, lent: StoreTransaction) -> None:
        self._lent = lent
        self._session: Any = None
        self.submitted = False
        """Whether runs were submitted in it, of which the workers hear when it has committed."""

    @property
    def session(self) -> AsyncSession:
        if self._session is None:
            self._session = self._lent.async_session()
        session: AsyncSession = self._session
        return session

    @property
    def lent(self) -> StoreTransaction:
        """The store's side of it."""
        return self._lent

    async def finish(self) -> None:
        """Write what the session still holds back."""
        if self._session is not None:
            await self._lent.finish_async(self._session)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def commit(self) -> None:
        """Commit; called by whoever opened it, never by user code."""
        await self._lent.off_loop(self._lent.commit)
