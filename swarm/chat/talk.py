"""The loop of a chat: read, answer, until there is nothing more to read."""

from swarm.chat.chat import Chat
from swarm.chat.orders import obey
from swarm.chat.reading import GivenUp, NotText, Read, message


async def talk(chat: Chat, read: Read) -> None:
    """Every line is a question, an order if it begins with a slash, or nothing.

    Raises `MessageTooLong`.

    A message with bytes that are no text is refused, as an answer that fails, and the chat goes on.
    """
    while not chat.over:
        try:
            said = await message(read)
        except GivenUp:
            continue
        except NotText as error:
            chat.refuse(error.readable, error)
            continue
        if said is None:
            return
        if said.startswith("/"):
            await obey(chat, said)
        elif said.strip():
            await chat.ask(said)
