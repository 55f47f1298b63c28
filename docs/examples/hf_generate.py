"""Code that was written for transformers: only the model comes from elsewhere.

SWARM_BOOTSTRAP=ADDRESS python docs/examples/hf_generate.py MODEL DRAFT
"""

import sys

from transformers import AutoTokenizer, TextStreamer

from swarm import SwarmModel


def main(name: str, draft: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
    with SwarmModel.from_pretrained(name, draft=draft) as model:
        inputs = tokenizer("Problem: Mia has 12 coins.", return_tensors="pt")
        model.generate(**inputs, max_new_tokens=20, streamer=TextStreamer(tokenizer))

        batch = tokenizer(
            ["Problem: Amir has", "Problem: On Monday, Olga"], padding=True, return_tensors="pt"
        )
        output = model.generate(**batch, max_new_tokens=20, do_sample=True, temperature=0.8, seed=1)
        print(tokenizer.batch_decode(output, skip_special_tokens=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
