"""``penstock approve``: say yes or no to what an answer asks for."""

from __future__ import annotations

from pathlib import Path

import click

from penstock.engine import JSON, ApprovalView

from ..client import RemoteSession
from .asking import ask, can_ask, demand
from .client import PATIENCE, ClientError, connected, run, server_options, token_source
from .screen import Screen

__all__ = ["approve"]


@click.command()
@click.argument("session")
@click.argument("approval_id", required=False)
@server_options
@click.option("--yes/--no", "approved", default=None, help="The answer; else you are asked.")
@click.option("--reason", metavar="TEXT", help="Why; the producer and everybody who follows can read it.")
def approve(
    session: str, approval_id: str | None, url: str, token_file: Path | None, approved: bool | None, reason: str | None
) -> None:
    """Answer an approval in SESSION: the one that is open, or APPROVAL_ID where there are several.

    Without --yes or --no each that is open is shown in full, and asked for at the terminal. Who answers first
    decides. Exit code 0 if all that was asked for here is answered.

    \b
    Examples:
      penstock approve chat                      ask me
      penstock approve chat --yes
      penstock approve chat 0198c0de-... --no --reason "not on a Friday"
    """

    token = token_source(token_file)

    async def answer() -> bool:
        # A server that was never there is an error at once; one that goes away behind this comes back.
        async with connected(url, token) as client:
            found = await _open(client.session(session), approval_id)
        async with connected(url, token, patience=PATIENCE) as client:
            handle = client.session(session)
            if approved is None:
                return await _ask_each(handle, found, reason)
            if len(found) > 1:
                raise ClientError(
                    f"there are several; name the one you mean, or leave --yes and --no away:\n{_list(found)}"
                )
            await _answer(handle, found[0], approved, reason)
            return True

    if not run(answer):
        raise SystemExit(1)


async def _open(session: RemoteSession, approval_id: str | None) -> tuple[ApprovalView, ...]:
    """Those that are meant, at least one. Raises `ClientError`."""
    approvals = (await session.snapshot(limit=1)).approvals
    if approval_id is not None:
        approvals = tuple(one for one in approvals if one.approval_id == approval_id)
    if not approvals:
        what = "nothing" if approval_id is None else "no approval with this id"
        raise ClientError(f"{what} waits for an answer in {session.session_id}")
    return approvals


async def _ask_each(session: RemoteSession, approvals: tuple[ApprovalView, ...], reason: str | None) -> bool:
    if not can_ask():
        raise ClientError(f"this is no terminal to ask at; say --yes or --no to:\n{_list(approvals)}")
    screen = Screen()
    for approval in approvals:
        answer = await ask(screen, demand(approval.name, approval.arguments))
        if answer is None:
            return False
        await _answer(session, approval, answer, reason)
    return True


async def _answer(session: RemoteSession, approval: ApprovalView, approved: bool, reason: str | None) -> None:
    said: dict[str, JSON] = {"approval_id": approval.approval_id, "approved": approved}
    if reason is not None:
        said["reason"] = reason
    assert approval.generation_id is not None
    await session.input(approval.generation_id, "approval", said)
    click.echo(f"approval {approval.approval_id} was {'given' if approved else 'refused'}")


def _list(approvals: tuple[ApprovalView, ...]) -> str:
    return "\n".join(f"  {one.approval_id}  {demand(one.name, one.arguments)}" for one in approvals)
