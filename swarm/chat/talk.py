"""The loop of a chat: read and answer, until the input or the chat ends."""

from swarm.chat.chat import ChatState
from swarm.chat.orders import obey
from swarm.chat.reading import GivenUp, NotText, Read, message


async def talk(chat: ChatState, read: Read) -> None:
    """Answer every message; one that begins with a slash is an order.

    A message with bytes that are not text gets an answer that fails, and the chat goes on.

    Raise `MessageTooLong`.
    """
    while not chat.over:
        try:
            text = await message(read)
        except GivenUp:
            continue
        except NotText as error:
            chat.refuse(error.readable, error)
            continue
        if text is None:
            return
        if text.startswith("/"):
            await obey(chat, text)
        elif text.strip():
            await chat.ask(text)
