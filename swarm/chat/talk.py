"""The loop of a chat: read, answer, until there is nothing more to read."""

from swarm.chat.chat import Chat
from swarm.chat.orders import obey
from swarm.chat.reading import GivenUp, Read, message


async def talk(chat: Chat, read: Read) -> None:
    """Every line is a question, an order if it begins with a slash, or nothing. Raises `MessageTooLong`."""
    while not chat.over:
        try:
            said = await message(read)
        except GivenUp:
            continue
        if said is None:
            return
        if said.startswith("/"):
            await obey(chat, said)
        elif said.strip():
            await chat.ask(said)
