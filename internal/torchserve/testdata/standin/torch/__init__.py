"""Nothing of torch but what the engine's zygote asks."""


class cuda:
    @staticmethod
    def is_initialized():
        return False


threads = 1


def set_num_threads(n):
    global threads
    threads = n


def get_num_threads():
    return threads
